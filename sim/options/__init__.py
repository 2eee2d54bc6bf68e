"""Offers side by side: what one piece of work costs on each, where they meet; stockpiles and ramps."""
