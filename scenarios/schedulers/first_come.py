"""A whole scheduler for `ersatz schedule SCENARIO --policy first_come.py`: copy it and change `on_event`."""

from ersatz.sim.fleet.log import Claims
from ersatz.sim.fleet.policies.placement import Placer
from ersatz.sim.fleet.protocol import Start


class Scheduler:
    name = "first-come"
    claims = Claims()  # what you promise beyond the rules; the validator holds you to it

    def on_start(self, view):
        self.placer = Placer()

    def on_event(self, now, events, view):
        for job in list(view.waiting.values()):  # in the order of their coming
            placement = self.placer.find(view, job)
            if placement is None:
                return
            yield Start(job.id, placement)

    def on_end(self, view):
        pass
