"""What others wrote for their own trainer becomes a scenario: launch scripts, configurations, logs.

Everything here reads; nothing of a file is ever run, and no address is opened.
"""
