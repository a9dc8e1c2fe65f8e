"""The answer of study_iteration_cost."""

import sgdstudy as ss

NEAR = 1e-3  # of the loss: what further samples may change of it


def sizes(runs):
    """Return the numbers of samples d, from few to many."""
    return [run.problem.d for run in runs.select("B=d, *").values()]


def short(o, runs, value):
    yield from times(runs, value)
    yield from price(runs, value)
    yield from progress(runs, value)


def answer(o, runs, value):
    yield ss.say("""A step on all the data takes the gradient of each of the d samples; a step on a
        batch takes those of the batch only, however many samples there are besides.""")
    yield from times(runs, value)
    yield from price(runs, value)
    ten, whole = (value["times_as_long_for_ten_times_d", line][-1] for line in ("B=10", "B=d"))
    before, most = sizes(runs)[-2:]
    yield ss.say(
        """From {before} to {most} samples the step on 10 takes {ten:.3} times as long, the step on
        all of them {whole:.2} times.""",
        before=before,
        most=most,
        ten=ten,
        whole=whole,
    )
    yield None
    yield ss.say("""What a step gains does not grow with d: more points of the same curve have
        nearly the same mean gradient.""")
    yield from progress(runs, value)


def times(runs, value):
    ten, whole = (value["microseconds_per_step", line] for line in ("B=10", "B=d"))
    yield ss.say(
        """A step on 10 samples takes {few:.0f} microseconds among {d} samples and {many:.0f} among
        {most}; a step on all of them takes {first:.0f} and {last:.0f} (as timed here, on one
        machine).""",
        few=ten[0],
        many=ten[-1],
        d=sizes(runs)[0],
        most=sizes(runs)[-1],
        first=whole[0],
        last=whole[-1],
    )


def price(runs, value):
    ten, whole = (value["microseconds_per_step", line][-1] for line in ("B=10", "B=d"))
    yield ss.say(
        "Among {most} samples a step on all of them costs {ratio:.2} times a step on 10.",
        most=sizes(runs)[-1],
        ratio=whole / ten,
    )


def progress(runs, value):
    d, *_, most = sizes(runs)
    first, last = (value["loss_after_two_steps", f"B=d, d={n:g}"] for n in (d, most))
    given = {"d": d, "most": most, "first": first, "last": last}
    if abs(last / first - 1) < NEAR:
        yield ss.say(
            """With more samples a step on all of them gets no further: after two such steps the
            loss is {first:.5} with {d} samples and {last:.5} with {most}.""",
            **given,
        )
    else:
        yield ss.say(
            """After two steps on all of them the loss is {first:.5} with {d} samples and {last:.5}
            with {most}.""",
            **given,
        )
