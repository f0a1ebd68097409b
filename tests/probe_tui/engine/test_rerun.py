"""Other options: the engine is told to run again, or another one is started."""

from __future__ import annotations

import os

import pytest
from workers import Start, heard_until, wait_for

from probe_engine.control import Break, Continue, ControlFile, Rerun, Step, Stop
from probe_engine.errors import ProbeError
from probe_engine.events import Finished
from probe_engine.sources.run_folder import read_spec
from probe_engine.spec import resolve
from probe_tui.feeds import LiveFeed


def test_a_rerun_is_asked_for_before_the_stop_and_begins_the_feed_anew(start: Start) -> None:
    engine = start(
        "say('hello')\nnext = run + 'b'\n"
        "while 'stop' not in open(run + '/control.jsonl').read(): time.sleep(.01)\n"
        "run = next; say('hello', 'finished'); time.sleep(60)"
    )
    feed = LiveFeed(engine)
    wait_for(lambda: feed.poll().events)
    first, pid = engine.run, engine.pid
    following = first.with_name("run0b")
    engine.rerun(resolve({"seed": 7}), following, (Break(on="warn"), Continue()))
    assert ControlFile(first).poll() == [Step(), Rerun(run=str(following)), Stop()]
    assert ControlFile(following).poll() == [Break(on="warn"), Continue()]
    assert read_spec(following).spec.seed == 7
    news = feed.poll()
    assert news.restart
    assert isinstance([*news.events, *heard_until(feed, Finished)][-1], Finished)
    assert (engine.run, engine.pid) == (following, pid)
    assert os.path.samefile(first / "engine.log", following / "engine.log")


@pytest.mark.parametrize("gone", ["before", "meanwhile"])
def test_a_rerun_of_an_engine_that_is_gone_starts_another(start: Start, gone: str) -> None:
    engine = start(
        "say('hello'); print('up', flush=True)\n"
        "if run.endswith('run0'):\n"
        "    while not os.path.exists(run + '/go'): time.sleep(.01)\n"
        "    sys.exit(1)\n"
        "say('finished'); time.sleep(60)"
    )
    first, pid = engine.run, engine.pid
    if gone == "before":
        (first / "go").touch()
        wait_for(engine.poll)
    engine.rerun(resolve({}), first.with_name("run0.2"))
    (first / "go").touch()
    heard_until(LiveFeed(engine), Finished)
    assert engine.pid != pid
    assert engine.alive


def test_a_refused_rerun_leaves_the_run_alone(start: Start) -> None:
    engine = start("say('hello'); time.sleep(60)")
    run = engine.run
    wait_for((run / "events.jsonl").exists)
    with pytest.raises(ProbeError, match="holds a run already"):
        engine.rerun(resolve({}), run)
    assert engine.run == run
    assert ControlFile(run).poll() == [Step()]
