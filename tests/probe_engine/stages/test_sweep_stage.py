"""The sweep is left out where so asked, and with it what it would have scored."""

from __future__ import annotations

import tiny

from probe_engine import probe


def test_without_a_sweep_nothing_is_scored_for_it() -> None:
    batch = tiny.batch(sizes=(4,) * 6)

    def run(**options):
        model = tiny.with_lora(tiny.model())
        return probe(model, optimizer=tiny.optimizer(model), batch=batch, fail_on="never", **options)

    swept, plain = run(), run(no_sweep=True)
    assert swept.sweep is not None
    assert plain.sweep is None
    (said,) = (f for f in plain.findings if f.code == "STAT004")
    assert (said.status, said.message) == ("skip", "left out by --no-sweep")
    held_out = sum(
        len(g.tokens) + len(r.tokens)
        for unit, row in zip(batch.units, plain.units, strict=True)
        if row.role == "E"
        for g in unit.groups
        for r in g.responses
    )
    spared = (r.forecast.predicted["fused"].tokens for r in (swept, plain))
    assert next(spared) - next(spared) == 3 * held_out
    assert [r.delta_h for r in plain.realized] == [r.delta_h for r in swept.realized]
