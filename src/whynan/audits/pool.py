"""Processes that do jobs for an audit: several at a time, each killed when it hangs and replaced when it dies."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any

#: A process answers so many jobs before a new one takes its place: what losses leave in memory does not add up.
JOBS_EACH = 12
#: Seconds that importing the package may take.
IMPORT = 180.0
_WORKING = {"status": "working"}
_RUN = "from whynan.audits.worker import main; main()"
Job = Mapping[str, Any]
Answer = dict[str, Any]


class Worker:
    """A process of `whynan.audits.worker`. `answered` counts its answers."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.answered = 0
        self._hung = False
        self._process = subprocess.Popen(
            [sys.executable, "-c", _RUN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(environment),
            text=True,
            encoding="utf-8",
            start_new_session=True,  # so that what it has started can be ended with it, and Ctrl-C is the auditor's to handle
        )

    def ask(self, job: Job, timeout: float) -> Answer:
        """The answer to a job; of status "hung" or "crashed" if the process gives none, which is then no more.

        The first part of the work, in which the module is imported, may take IMPORT seconds, each further one `timeout`.
        """
        assert self._process.stdin is not None
        with suppress(OSError):  # it has died: then it says nothing
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        limit, answer = IMPORT, self._listen(IMPORT)
        while answer == _WORKING:
            limit, answer = timeout, self._listen(timeout)
        self.answered += 1
        if answer:
            return answer
        self.end()
        if self._hung:
            return {"status": "hung", "reason": f"it did not end within {limit:g} s and was ended"}
        return {"status": "crashed", "reason": f"its process died: {_death(self._process.wait())}"}

    @property
    def alive(self) -> bool:
        """Whether the process can take another job."""
        return self._process.poll() is None

    def end(self) -> None:
        """End the process and all that it has started."""
        if self.alive:  # else its number may be another's by now
            with suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _listen(self, limit: float) -> Answer:
        """The next line that the process says; empty if it dies, or is ended because it says none within `limit` seconds."""
        assert self._process.stdout is not None
        timer = threading.Timer(limit, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            line = self._process.stdout.readline()
        except (OSError, ValueError):
            line = ""
        timer.cancel()
        return dict(json.loads(line)) if line.endswith("\n") else {}

    def _give_up(self) -> None:
        self._hung = True
        self.end()


def ask_once(job: Job, timeout: float, environment: Mapping[str, str]) -> Answer:
    """The answer of a process of its own."""
    worker = Worker(environment)
    try:
        return worker.ask(job, timeout)
    finally:
        worker.end()


def ask_all(jobs: Sequence[Job], timeout: float, at_once: int, environment: Mapping[str, str]) -> Generator[tuple[Job, Answer]]:
    """The jobs with their answers as they come, `at_once` of them being worked on. Closing the iterator ends all processes.

    A job that kills a process which has answered others is tried again in a new one, so that no loss is blamed for another's.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Job, Answer]] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    stop, workers = threading.Event(), _Workers(environment)
    threads = [threading.Thread(target=_serve, args=(waiting, done, workers, timeout, stop), daemon=True) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    try:
        for _ in jobs:
            yield done.get()
    finally:
        stop.set()
        workers.end()


class _Workers:
    """All processes of a pool, so that they can be ended together; none is started after that."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self._all: list[Worker] | None = []

    def start(self) -> Worker | None:
        with self._lock:
            if self._all is None:
                return None
            worker = Worker(self._environment)
            self._all = [*(w for w in self._all if w.alive), worker]
            return worker

    def end(self) -> None:
        with self._lock:
            for worker in self._all or ():
                worker.end()
            self._all = None


def _serve(waiting: Any, done: Any, workers: _Workers, timeout: float, stop: threading.Event) -> None:
    """Let one process after another do the waiting jobs."""
    worker: Worker | None = None
    while not stop.is_set():
        try:
            job = waiting.get_nowait()
        except queue.Empty:
            break
        if worker is None or not worker.alive or worker.answered >= JOBS_EACH:
            worker = _renewed(worker, workers)
        if worker is None:
            break
        used = worker.answered > 0
        answer = worker.ask(job, timeout)
        if answer["status"] == "crashed" and used and not stop.is_set():
            worker = _renewed(worker, workers)
            answer = worker.ask(job, timeout) if worker is not None else answer
        if not stop.is_set():
            done.put((job, answer))
    if worker is not None:
        worker.end()


def _renewed(worker: Worker | None, workers: _Workers) -> Worker | None:
    if worker is not None:
        worker.end()
    return workers.start()


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, one thread each, and its import path: what it can import its workers can."""
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    return {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **given, "PYTHONPATH": path}


def _death(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
