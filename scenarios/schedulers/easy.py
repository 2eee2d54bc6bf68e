"""EASY backfilling as a scheduler in a process of its own: copy this file and change `decide`.

    ersatz schedule SCENARIO --door batsim --scheduler "python easy.py {endpoint}"

It speaks Batsim's protocol (JSON over ZeroMQ) and needs only pyzmq. ersatz sends what happened and
waits; the reply is what to do, at this very moment. Devices are numbers; text like "0-7 16" means
several. The file `easy.py` inside ersatz decides the same, so that both write the same log.
"""

import json
import math
import sys

import zmq


class Easy:
    """What the scheduler knows, kept up to date by `learn`; `decide` says what to do."""

    def __init__(self):
        self.types = {}  # device -> accelerator type
        self.free = set()  # devices that no job holds; some may be down
        self.down = set()
        self.waiting = {}  # job id -> job, in the order of submission
        self.running = {}  # job id -> (when it ends at the latest, devices)
        self.promise = None  # (job id, time, devices) for the head of the queue

    def learn(self, event, now):
        """Take in one event; tells whether devices came free or went away."""
        kind, data = event["type"], event.get("data", {})
        if kind == "SIMULATION_BEGINS":
            for device in data["compute_resources"]:
                self.types[device["id"]] = device["properties"]["type"]
            self.free = set(self.types)
        elif kind == "JOB_SUBMITTED":
            self.waiting[data["job_id"]] = data["job"]
            by_time = sorted(self.waiting.items(), key=lambda item: item[1]["subtime"])
            self.waiting = dict(by_time)
        elif kind == "JOB_COMPLETED":
            self.free |= self.running.pop(data["job_id"])[1]
            return True
        elif kind == "NOTIFY" and data["type"] == "event_machine_unavailable":
            self.down |= numbers(data["resources"])
            return True
        elif kind == "NOTIFY" and data["type"] == "event_machine_available":
            self.down -= numbers(data["resources"])
            return True
        return False

    def decide(self, now, changed):
        """Yield what to do: start in order, promise the head its start, let others overtake."""
        while self.waiting:
            name = next(iter(self.waiting))
            devices = self.place(self.waiting[name], self.free - self.down)
            if devices is None:
                break
            yield self.start(name, devices, now)
        if not self.waiting:
            self.promise = None
            return
        head = next(iter(self.waiting))
        if changed or self.promise is None or self.promise[0] != head:
            promise = self.promised(head, now)
            if promise[1] < math.inf and promise != self.promise:
                yield "RESERVE", {"job_id": head, "at": promise[1], "alloc": text(promise[2])}
            self.promise = promise
        for name, job in list(self.waiting.items())[1:]:
            ends_s = now + job.get("walltime", math.inf)
            devices = self.place(job, self.free - self.down)
            if devices and ends_s > self.promise[1]:  # it would still run when the head starts
                devices = self.place(job, self.free - self.down - self.promise[2])
            if devices and self.promise[1] < math.inf:
                yield self.start(name, devices, now)

    def promised(self, name, now):
        """Return when and where a job starts at the latest, as jobs end at their limits."""
        free = self.free - self.down
        ends = sorted(self.running.values(), key=lambda run: run[0])
        for time in sorted({end for end, _ in ends if end < math.inf}):
            free |= {d for end, devices in ends if end == time for d in devices - self.down}
            devices = self.place(self.waiting[name], free)
            if devices is not None:
                return name, max(time, now), devices
        return name, math.inf, set()

    def place(self, job, free):
        """Return the lowest free devices of the first type that has enough, or None."""
        for kind in job.get("types") or dict.fromkeys(self.types.values()):
            found = sorted(device for device in free if self.types[device] == kind)
            if len(found) >= job["res"]:
                return set(found[: job["res"]])
        return None

    def start(self, name, devices, now):
        """Start a waiting job on devices."""
        job = self.waiting.pop(name)
        self.free -= devices
        self.running[name] = (now + job.get("walltime", math.inf), devices)
        return "EXECUTE_JOB", {"job_id": name, "alloc": text(devices)}


def numbers(devices_text):
    """Return the numbers in text like "0-3 7"."""
    spans = [part.split("-") for part in devices_text.split()]
    return {n for span in spans for n in range(int(span[0]), int(span[-1]) + 1)}


def text(devices):
    """Write numbers as text."""
    return " ".join(str(device) for device in sorted(devices))


def main(endpoint):
    """Answer until the simulation ends."""
    scheduler, over = Easy(), False
    socket = zmq.Context().socket(zmq.REP)
    socket.bind(endpoint)
    while not over:
        message = json.loads(socket.recv())
        now, events = message["now"], message["events"]
        changes = [scheduler.learn(event, now) for event in events]
        over = any(event["type"] == "SIMULATION_ENDS" for event in events)
        orders = [] if over else list(scheduler.decide(now, any(changes)))
        answer = [{"timestamp": now, "type": kind, "data": data} for kind, data in orders]
        socket.send_string(json.dumps({"now": now, "events": answer}))


if __name__ == "__main__":
    main(sys.argv[1])
