"""The process that checks losses for an audit: jobs as JSON lines on stdin, one answer line each on stdout.

A job is {"do": "find", "module": …} or {"do": "check", "module": …, "target": …, …}. Before each part of the work that has a time
limit of its own there is a line {"status": "working"}. What a loss prints goes nowhere; if it hangs or kills the process, only its own
answer is lost.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

CONFIRMED_AT_MOST = 4  # scripts of one loss that are run


def main() -> None:
    """Answer jobs until stdin ends."""
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    jobs, answers = sys.stdin, os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    sys.path.insert(0, os.getcwd())

    def say(data: Mapping[str, Any]) -> None:
        answers.write(json.dumps(data, allow_nan=False) + "\n")
        answers.flush()

    for line in jobs:
        say(answer(json.loads(line), lambda: say({"status": "working"})))


def _follow(parent: int) -> None:
    """End when the auditor has ended, however that came about: a loss that hangs would else go on for ever."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


def answer(job: Mapping[str, Any], working: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """The answer to a job; its `status` is "found", "checked", "refused" (whynan says why) or "failed" (a defect of whynan).

    `working` is called when the next part of the work begins: the module is imported, the check is done.
    """
    from whynan.errors import WhynanError

    try:
        return _find(job) if job["do"] == "find" else _check(job, working)
    except WhynanError as error:
        return {"status": "refused", "reason": error.message}
    except Exception as error:
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"}


def _find(job: Mapping[str, Any]) -> dict[str, Any]:
    from whynan.audits.find import find_losses, versions
    from whynan.target import load_module

    module = load_module(job["module"])
    found, others = find_losses(module)
    named = [{"name": f.name, "aliases": list(f.aliases), "needs": list(f.needs)} for f in found]
    return {"status": "found", "losses": named, "others": others, "versions": versions(module)}


def _check(job: Mapping[str, Any], working: Callable[[], None]) -> dict[str, Any]:
    from whynan.api import check
    from whynan.domain.parse import parse
    from whynan.preparing.inputs import stated_domains
    from whynan.report.html import to_html
    from whynan.target import arguments_of, load_module, load_target

    load_module(job["module"])
    seeded(int(job.get("seed") or 0))
    working()
    target = load_target(job["target"])
    takes = arguments_of(target.callable)
    general = {name: text for name, text in job["domains"].items() if name in takes}
    given = {name: parse(text) for name, text in {**general, **job["own_domains"]}.items() if text}
    options = {key: job[key] for key in ("framework", "modes", "dtype", "budget", "seed") if job.get(key) is not None}
    options.setdefault("framework", target.framework)
    report = check(target.callable, domains={**stated_domains(target), **given}, name=target.name, **options)
    page = to_html(report)
    scripts = [f.witness.script() for f in report.findings if f.severity == "error" and f.kind == "non-finite" and f.witness is not None]
    confirmed = []
    for script in scripts[:CONFIRMED_AT_MOST] if job["confirm"] else ():
        working()
        confirmed.append(fails(script))
    domains = {name: str(domain) for name, domain in report.domain.items()}
    return {"status": "checked", "report": report.to_dict(), "page": page, "domains": domains, "confirmed": confirmed}


def seeded(seed: int) -> None:
    """Make the random weights that a loss is made with the same each time, in the frameworks that are loaded."""
    random.seed(seed)
    ways = {"numpy": "random.seed", "torch": "manual_seed", "tensorflow": "random.set_seed", "keras": "utils.set_random_seed"}
    for name, way in ways.items():
        if name in sys.modules:
            attrgetter(way)(sys.modules[name])(seed)


def fails(script: str) -> bool:
    """Whether a witness script, run in a process of its own, says that the loss is not finite (exit code 1)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "witness.py"
        file.write_text(script, encoding="utf-8")
        return subprocess.run([sys.executable, file], capture_output=True).returncode == 1


if __name__ == "__main__":
    main()
