"""The tables of docs/results/westofn.md from the results: `python -m benchmarks.repro.westofn.tables`."""

from typing import Any

from benchmarks.results import markdown, read, rows_of

NS = ("2", "8", "32", "64")


def number(x: list[Any], sign: str = "") -> str:
    """A mean with its interval."""
    mean, low, high = ("nan" if v is None else f"{v:{sign}.3f}" for v in x)
    return f"{mean} [{low}, {high}]"


def labels(sweep: list[dict[str, Any]]) -> str:
    """Teachers' error, the bound, and how many pseudo-labels were right."""
    return markdown(
        ["labels wrong", "teacher", "ε", "1 − 2ε", *(f"right, N = {n}" for n in NS), "ties half, N = 64"],
        [
            [f"{r['wrong']:.0%}", r["teacher"], number(r["error"]), f"{r['bound']:.2f}",
             *(number(r["pseudo_accuracy"][n]) for n in NS), number(r["pseudo_ties_half"]["64"])]
            for r in sweep
        ],
    )  # fmt: skip


def gains(sweep: list[dict[str, Any]]) -> str:
    """What the students gained; intervals over the seeds."""
    rows = []
    for r in sweep:
        new = r["teacher"] == "same"
        base = [number(r["base"]), number(r["more_labels_accuracy_gain_by_seed"], "+")] if new else ["", ""]
        rows.append(
            [f"{r['wrong']:.0%}", *base, r["teacher"], *(number(r["accuracy_gain_by_seed"][n], "+") for n in NS)]
        )
    return markdown(["labels wrong", "base", "more labels", "teacher", *(f"N = {n}" for n in NS)], rows)


def arms(rows: list[dict[str, Any]]) -> str:
    """Every arm of a setting."""
    out = []
    for r in rows:
        if "accuracy" not in r or " | L2" in r["arm"]:
            continue
        base = r["arm"] == "base"
        shown = [number(r["accuracy"])] if base else [f"{r['accuracy'][0]:.3f}"]
        shown.append("" if base else number(r["accuracy_gain"], "+"))
        shown.append(number(r["best_of_n"]) if base else f"{r['best_of_n'][0]:.3f}")
        shown.append("" if base else number(r["best_of_n_gain"], "+"))
        pairs = [number(r["pseudo_accuracy"]), f"{r['pseudo_differs']:.2f}"] if "pseudo_accuracy" in r else ["", ""]
        up = "" if base else f"{r['accuracy_up']:.2f}, {r['best_of_n_up']:.2f}"
        out.append([r["arm"], *shown, *pairs, up])
    return markdown(
        ["arm", "accuracy", "gain", "best of 16", "gain", "pseudo-labels right", "of pairs that differ", "seeds up"],
        out,
    )


def fixed_l2(rows: list[dict[str, Any]], l2: list[float]) -> str:
    """The arms that were also scored at every fixed L2."""
    by = {r["arm"]: r for r in rows}
    names = [a for a in by if f"{a} | L2 {l2[0]:g}" in by]
    shown = {a: f"{r['accuracy'][0]:.3f} ({r['best_of_n'][0]:.3f})" for a, r in by.items() if "accuracy" in r}
    return markdown(
        ["accuracy (best of 16) at L2", *(f"{x:g}" for x in l2), "chosen by validation"],
        [[a, *(shown[f"{a} | L2 {x:g}"] for x in l2), shown[a]] for a in names],
    )


def judges(rows: list[dict[str, Any]]) -> str:
    """The local judge's figures, a column a judge and set."""
    columns = [(r["set"], r["judge"], r) for r in sorted(rows, key=lambda r: (r["set"], r["judge"]), reverse=True)]
    lines: list[tuple[str, Any]] = [
        ("pairs", lambda r: str(r["pairs"])),
        ("unread after retries", lambda r: str(r["unread"])),
        ("the first both times", lambda r: number(r["first_both_times"])),
        ("the second both times", lambda r: number(r["second_both_times"])),
        ("agrees with the label", lambda r: number(r["agreement"])),
        ("where its orders agree", lambda r: f"{number(r['agreement_where_consistent'][1:])}, "
         f"{r['agreement_where_consistent'][0]} pairs"),
        ("the longest (random: 0.5)", lambda r: number(r["longest"])),
        ("over the longest", lambda r: number(r["over_longest"], "+")),
        ("takes the longer", lambda r: number(r["prefers_longer"])),
        ("win rate", lambda r: number(r["win_rate"])),
        ("at equal lengths", lambda r: number(r["length_controlled"])),
        ("the labels' win rate", lambda r: number(r["label_win_rate"])),
        ("at equal lengths", lambda r: number(r["label_length_controlled"])),
    ]  # fmt: skip
    return markdown(
        ["", *(f"{name}, {kind}" for name, kind, _ in columns)],
        [[what, *(say(r) for _, _, r in columns)] for what, say in lines],
    )


def settings(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by setting."""
    return {n: [r for r in rows if r["setting"] == n] for n in dict.fromkeys(r["setting"] for r in rows)}


def main() -> None:
    chain, alpaca, local = (read(n) for n in ("westofn_chain", "westofn_alpaca", "judge_local"))
    print(labels(rows_of(chain, "sweep")))
    print(gains(rows_of(chain, "sweep")))
    for name, rows in settings(rows_of(chain, "arms")).items():
        if any(r["arm"] == "same, N=64, round 2" for r in rows):
            print(f"{name}, {rows[0]['seeds']} seeds\n\n{arms(rows)}\n{fixed_l2(rows, chain['settings']['l2'])}")
    for name, rows in settings(alpaca["rows"]).items():
        print(f"AlpacaEval, {name}, {rows[0]['seeds']} seeds\n\n{arms(rows)}")
        print(fixed_l2(rows, alpaca["settings"]["l2"]))
        print("errors:", {r["arm"]: r["error"] for r in rows if "error" in r})
    print(judges(local["rows"]), {name: s["counts"] for name, s in local["figures"]["sets"].items()})


if __name__ == "__main__":
    main()
