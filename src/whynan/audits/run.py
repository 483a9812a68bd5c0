"""The verb: find a module's losses, check each in a process, keep and tell what came out."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from whynan import __version__
from whynan.audits import store
from whynan.audits.overrides import Override, Overrides, from_file, shipped, unused
from whynan.audits.pool import Answer, ask_all, ask_once
from whynan.audits.store import Record
from whynan.errors import TargetError
from whynan.result import Report


@dataclass(frozen=True, slots=True)
class Options:
    """How an audit is done. The first five are those of a check; `timeout` is in seconds for each loss, `jobs` how many at a time.

    `only` are words of which a loss's name must contain one. `fresh` checks again what the output folder has an answer to.
    `confirm` runs the program of each failure in a process of its own.
    """

    framework: str | None = None
    modes: Sequence[str] | None = None
    dtype: str | None = None
    budget: float | None = None
    seed: int = 0
    timeout: float = 120.0
    jobs: int = 0
    only: Sequence[str] = ()
    fresh: bool = False
    confirm: bool = True


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found: a record for each loss, the public callables that are no losses, and the versions of the packages."""

    module: str
    versions: Mapping[str, str]
    records: tuple[Record, ...]
    others: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)  # name -> stem of the files in `losses`


@dataclass(frozen=True, slots=True)
class Plan:
    """The losses to be checked: jobs by name, and what each answer will depend on."""

    module: str
    versions: Mapping[str, str]
    others: tuple[str, ...]
    files: Mapping[str, str]
    jobs: Mapping[str, Mapping[str, Any]]
    excluded: tuple[Record, ...]


def audit(
    module: str | ModuleType,
    /,
    *,
    output: str | os.PathLike[str] | None = None,
    overrides: str | os.PathLike[str] | None = None,
    framework: str | None = None,
    modes: Sequence[str] | str | None = None,
    dtype: str | None = None,
    budget: float | None = None,
    seed: int = 0,
    timeout: float = 120.0,
    jobs: int = 0,
    only: Sequence[str] = (),
    fresh: bool = False,
) -> list[Report]:
    """Check every loss that a package's module exports, several at a time, each in a process that may hang or die.

    With `output`, a folder, the answers are kept there as they come, with a table and a page for each loss, and a second call does
    only what is missing. `overrides` is a TOML file that says what inference cannot know (`whynan.audits.overrides`). A loss that
    could not be checked has an undecided report that says why. Raises TargetError if the module cannot be imported or has no losses.
    """
    name = module.__name__ if isinstance(module, ModuleType) else module
    wanted = tuple(modes.split(",")) if isinstance(modes, str) else tuple(modes) if modes is not None else None
    options = Options(framework, wanted, dtype, budget, seed, timeout, jobs, tuple(only), fresh)
    folder = Path(output) if output is not None else None
    done = run(name, options, folder, Path(overrides) if overrides is not None else None)
    return [Report.of(store.report_of(r)) for r in done.records if r.status != store.EXCLUDED]


def run(
    module: str,
    options: Options,
    folder: Path | None = None,
    overrides: Path | None = None,
    tell: Callable[[int, int, Record | None], None] = lambda done, total, record: None,
) -> Audit:
    """The audit of a module. `tell` hears of each loss as it is done: how many are, of how many, and its record.

    What is done is in the folder before `tell` hears of it, so that an interruption loses only what was under way.
    """
    plan = planned(module, options, overrides)
    losses = folder / "losses" if folder is not None else None
    if losses is not None:
        losses.mkdir(parents=True, exist_ok=True)
    records = {r.name: r for r in plan.excluded}
    for name, job in plan.jobs.items():
        kept = store.load(losses, plan.files[name]) if losses is not None and not options.fresh else None
        if kept is not None and kept.key == job["key"] and not _cut_short(kept, options):
            records[name] = kept
    total = len(plan.jobs) + len(plan.excluded)
    tell(len(records), total, None)
    missing = [job for name, job in plan.jobs.items() if name not in records]
    for record, page in _answered(missing, options):
        if losses is not None:
            store.save(losses, plan.files[record.name], record, page)
        records[record.name] = record
        tell(len(records), total, record)
    return Audit(plan.module, plan.versions, tuple(records[n] for n in sorted(records, key=str.lower)), plan.others, plan.files)


def planned(module: str, options: Options, overrides: Path | None = None) -> Plan:
    """The losses of a module and how each is to be checked. Raises TargetError if it cannot be imported or has none."""
    said = shipped(module).plus(from_file(overrides) if overrides is not None else Overrides())
    answer = ask_once({"do": "find", "module": module}, options.timeout, _environment(module, options))
    if answer["status"] != "found":
        raise TargetError(f"{module}: {answer['reason'].rstrip('.')}.", "Give a module that can be imported, such as torch.nn.functional.")
    found = {loss["name"]: loss for loss in answer["losses"]}
    every = {name for loss in found.values() for name in (loss["name"], *loss["aliases"])} | {*answer["others"]}
    if complaint := unused(said, every):
        raise TargetError(f"overrides of {module}: {complaint}", "Mend the file of overrides.")
    found |= {n: {"name": n, "aliases": [], "needs": []} for n in said.losses if n in answer["others"]}  # named: so it is a loss
    if not found:
        raise TargetError(
            f"{module} exports no losses.", "Losses are found by name and signature; others can be named in --overrides FILE."
        )
    chosen = [name for name in found if not options.only or any(word.lower() in name.lower() for word in options.only)]
    if not chosen:
        raise TargetError(f"no loss of {module} is called like {', '.join(options.only)}.", f"It has {', '.join(list(found)[:8])}, ….")
    jobs, excluded = {}, []
    for name in chosen:
        own = said.of(name)
        if own.exclude:
            excluded.append(Record(name, f"{module}:{name}", store.EXCLUDED, tuple(found[name]["aliases"]), reason=own.exclude))
        else:
            jobs[name] = _job(module, found[name], own, said.domains, options, answer["versions"])
    others = tuple(name for name in answer["others"] if name not in found)
    return Plan(module, answer["versions"], others, store.file_names(found), jobs, tuple(excluded))


def _job(
    module: str, loss: Mapping[str, Any], own: Override, domains: Mapping[str, str], options: Options, versions: Mapping[str, str]
) -> dict[str, Any]:
    target = f"{module}:{own.call or loss['name']}"
    check = {key: getattr(options, key) for key in ("framework", "dtype", "budget", "seed", "confirm")}
    check["modes"] = list(options.modes) if options.modes is not None else None
    said = {"target": target, "domains": dict(domains), "own_domains": dict(own.domains)}
    key = {**said, "options": check, "versions": {"whynan": __version__, **versions}}
    return {"do": "check", "module": module, "name": loss["name"], "aliases": loss["aliases"], **said, **check, "key": key}


def _answered(jobs: Sequence[Mapping[str, Any]], options: Options) -> Iterator[tuple[Record, str]]:
    """The records of jobs as they are done, each with the loss's page."""
    if not jobs:
        return
    at_once = min(options.jobs or max((os.cpu_count() or 2) // 2, 1), len(jobs))
    environment = _environment(jobs[0]["module"], options)
    with closing(ask_all(jobs, options.timeout, at_once, environment)) as answers:
        for job, answer in answers:
            yield _record(job, answer, options), str(answer.get("page", ""))


def _cut_short(record: Record, options: Options) -> bool:
    """Whether a loss was ended because of a shorter time limit than the present one."""
    return record.status == store.HUNG and options.timeout > record.seconds


def _record(job: Mapping[str, Any], answer: Answer, options: Options) -> Record:
    report = answer.get("report")
    spent = float(report["seconds"]) if report is not None else options.timeout if answer["status"] == store.HUNG else 0.0
    return Record(
        name=job["name"],
        target=job["target"],
        status=answer["status"],
        aliases=tuple(job["aliases"]),
        key=job["key"],
        reason=answer.get("reason", ""),
        seconds=round(spent, 2),
        domains=answer.get("domains", {}),
        confirmed=tuple(answer.get("confirmed", ())),
        report=report,
    )


def _environment(module: str, options: Options) -> dict[str, str]:
    """Keras chooses its framework when it is imported."""
    return {"KERAS_BACKEND": options.framework} if options.framework and module.partition(".")[0].startswith("keras") else {}
