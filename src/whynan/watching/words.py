"""An incident in words: what happened, where, which sample, why, what to do."""

from whynan.analysis.blame import number
from whynan.ir.where import Site
from whynan.watching.record import Element, Incident


def told(incident: Incident) -> str:
    """The incident as text of several lines, most important first."""
    lines = [_headline(incident), *_origin(incident), *_batch(incident)]
    lines += [f"  advice     {a}" for a in incident.advice]
    lines += [f"  note       {n}" for n in incident.notes]
    if incident.folder is not None:
        lines.append(f"  incident   {incident.folder}  (whynan explain {incident.folder})")
    return "\n".join(lines)


def _headline(incident: Incident) -> str:
    what = {"loss": f"the loss is {number(incident.loss)}", "gradient": "a gradient is not finite"}.get(incident.failed, incident.failed)
    rank = f" on rank {', '.join(map(str, incident.ranks))} of {incident.world}" if incident.world > 1 else ""
    return f"step {incident.step}: {what}{rank}; the parameters are as before this step."


def _origin(incident: Incident) -> list[str]:
    finding = incident.finding
    if finding is None:
        return [f"  why        {incident.unexplained}"]
    lines = [f"  {incident.kind}: {finding.cause} ({finding.phase})"]
    if finding.site is not None:
        lines.append(f"  at         {place(finding.site)}    {finding.site.text}")
    lines.append(f"  why        {finding.message}")
    if incident.layer:
        lines.append(f"  layer      {incident.layer}")
    if incident.parameters:
        more = f" and {len(incident.parameters) - 1} more" if len(incident.parameters) > 1 else ""
        lines.append(f"  parameter  {incident.parameters[0]}{more}")
    lines += [f"  then       {s.op} -> {s.output}" for s in finding.chain[1:]]
    return lines


def _batch(incident: Incident) -> list[str]:
    s = incident.suspects
    lines = []
    if s.samples:
        lines.append(f"  sample     {_several(s.samples)} of {s.batch}" + (_alone(s.alone)))
    lines += [f"  value      {element(e)}" for e in s.elements]
    return lines


def _alone(alone: tuple[int, ...]) -> str:
    return f"; {_several(alone)} alone {'fails' if len(alone) == 1 else 'fail'}, too" if alone else ""


def _several(numbers: tuple[int, ...], most: int = 8) -> str:
    shown = ", ".join(map(str, numbers[:most]))
    return shown + (f", ... ({len(numbers)} in all)" if len(numbers) > most else "")


def element(e: Element) -> str:
    """An element as Python would write it: `x[3, 1] = inf`."""
    return f"{e.name}[{', '.join(map(str, e.index))}] = {number(e.value)}" if e.index else f"{e.name} = {number(e.value)}"


def place(site: Site) -> str:
    """`FILE:LINE` of a site."""
    return f"{site.file}:{site.line}"
