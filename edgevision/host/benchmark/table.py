"""The result as a Markdown table: the figures that people compare, and what they were measured with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADER = (
    "model", "backend", "threads", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "MLPerf p90 ms", "MLPerf p99 ms",
    "bare p50 ms", "edgevision / bare", "cold start ms", "peak memory MB", "CPU % of a core",
)  # fmt: skip
_STAGES = ("capture_decode", "preprocess", "inference", "decode", "publish")


def rows(document: Mapping[str, Any]) -> list[list[str]]:
    """A row a candidate, as HEADER says."""
    return [_row(result) for result in document["results"]]


def _row(result: Mapping[str, Any]) -> list[str]:
    latency, bare, stopping = result["latency"], result["bare"], result["early_stopping"]
    ratio = bare.get("ratio")
    return [
        result["model"]["name"],
        result["backend"],
        str(result["threads"]),
        *(f"{latency[f'p{percent}_ms']:.2f}" for percent in (50, 90, 95, 99)),
        *(_estimate(stopping[name], latency["calls"]) for name in ("p90", "p99")),
        f"{bare['latency']['p50_ms']:.2f}" if "latency" in bare else "-",
        f"{ratio['ratio']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f})" if ratio else "-",
        f"{result['cold_start']['total_ms']:.0f}",
        _megabytes(result["closed_loop"]["peak_rss_bytes"]),
        f"{result['closed_loop']['cpu_percent_of_a_core']:.0f}",
    ]


def _estimate(said: Mapping[str, Any], calls: int) -> str:
    return (
        f"{said['value_ms']:.2f}"
        if said["value_ms"] is not None
        else f"needs {said['calls_needed']} calls, had {calls}"
    )


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.0f}"


def markdown(document: Mapping[str, Any]) -> str:
    """The whole report."""
    parts = ["# edgevision benchmark", "", *_machine(document["environment"]), ""]
    parts += _table(HEADER, rows(document))
    for result in document["results"]:
        parts += ["", f"## {title(result)}", ""]
        parts += [f"- {line}" for line in details(result)]
        if "operators" in result["profile"]:
            parts += ["", *_table(
                ("operator", "nodes", "us a call", "share"),
                [[one["operator"], str(one["count"]), f"{one['mean_us']:.0f}", f"{one['share']:.1%}"]
                 for one in result["profile"]["operators"]],
            )]  # fmt: skip
    for failure in document["failures"]:
        parts += ["", f"**{failure['candidate']}** failed: {failure['error']}"]
    return "\n".join(parts) + "\n"


def title(result: Mapping[str, Any]) -> str:
    """What was measured, for people."""
    threads = result["threads"]
    return f"{result['model']['name']}, {result['backend']}, {threads} thread{'s' if threads > 1 else ''}"


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *body]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _machine(environment: Mapping[str, Any]) -> list[str]:
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    features = ", ".join(environment["features"]) or "none known"
    return [
        f"- {environment['cpu']}, {environment['cores']} cores ({features}), governor {environment['governor'] or 'not told'}",
        f"- {environment['system']}, Python {environment['python']}, edgevision {environment['edgevision']}",
        f"- {packages}",
    ]


def details(result: Mapping[str, Any]) -> list[str]:
    """What the table has no room for, a line each."""
    cold, settings, bare = result["cold_start"], result["settings"], result["bare"]
    stages = ", ".join(f"{name} {result['stages'][name]['p50_ms']:.2f}" for name in _STAGES)
    calls = f"{result['latency']['calls']} calls in {settings['repeats']} processes"
    cold_ms = ", ".join(f"{name} {cold[f'{name}_ms']:.0f}" for name in ("process", "import", "load", "first_frame"))
    lines = [
        f"model {result['model']['given']}, sha256 {result['model']['sha256']}, version {result['model']['version']}",
        f"frame {result['frame']}, {calls}, {result['stable_repeats']} of them stable after the warm-up",
        f"load average before: {result['load_average_before']}; {_others(result)}",
        f"stages, p50 ms: {stages} (capture_decode: of one JPEG, in the camera's own process, not part of the latency)",
        f"cold start, ms (files in the page cache): {cold_ms}",
        f"closed loop: {_alone(result['closed_loop'])}",
        f"paced: {_alone(result['paced'])}" if result["paced"] else "paced: not asked for: --paced FPS",
        f"throttled: {result['sensors']['throttled']}",
        f"temperature, C: {_temperature(result['sensors'])}",
    ]
    if "said" in bare:
        lines.append(f"bare runtime: {bare['said']}")
    if "ratio_in_turns" in bare:
        ratio = bare["ratio_in_turns"]
        lines.append(
            f"edgevision / bare, call by call: {ratio['ratio']:.3f} ({ratio['low']:.3f}-"
            f"{ratio['high']:.3f}); {ratio['quiet_share']:.0%} of the turns were undisturbed"
        )
    return lines + _profile(result["profile"])


def _others(result: Mapping[str, Any]) -> str:
    told = [one["others_cores"] for one in result["repeats"] if one["others_cores"] is not None]
    if not told:
        return "the kernel does not tell what else the machine did"
    return f"meanwhile other work kept {sum(told) / len(told):.2f} cores busy"


def _alone(run: Mapping[str, Any]) -> str:
    latency, spent = run["latency"], run["power"]
    power = spent.get("said") or ", ".join(f"{rail} {watts:.2f} W" for rail, watts in spent["mean_w"].items())
    left_out = f", {run['frames_left_out']} frames left out" if run["fps_asked"] else ""
    return (
        f"{run['fps']:.1f} frames/s{left_out}, p50 {latency['p50_ms']:.2f} ms, p99 {latency['p99_ms']:.2f} ms, CPU "
        f"{run['cpu_percent_of_a_core']:.0f} % of a core, {run['cpu_ms_per_frame']:.2f} ms of CPU a frame, peak RSS "
        f"{_megabytes(run['peak_rss_bytes'])} MB, PSS {_megabytes(run['pss_bytes'])} MB; power {power}"
    )


def _temperature(sensors: Mapping[str, Any]) -> str:
    before, after = sensors["before"]["temperature_c"], sensors["after"]["temperature_c"]
    if not after:
        return "not available: no thermal zone in /sys/class/thermal"
    return ", ".join(f"{zone} {before.get(zone, float('nan')):.0f} -> {value:.0f}" for zone, value in after.items())


def _profile(profile: Mapping[str, Any]) -> list[str]:
    if "said" in profile:
        return [f"profile: {profile['said']}"]
    providers = ", ".join(
        f"{name} {part['nodes']} nodes ({part['node_share']:.0%}), {part['time_share']:.0%} of the time"
        for name, part in profile["providers"].items()
    )
    kernels = profile["convolutions"]
    return [
        f"execution providers: {providers}",
        f"convolutions: {kernels['integer']} integer kernels, {kernels['float']} float kernels",
    ]
