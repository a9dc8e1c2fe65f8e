"""Beyond the notebook: what if descent takes one sample at a time, as the text of Exercise 1 says?

Hypothesis: it is another algorithm than the code of the exercise, which takes all samples at once.
Shuffled it converges, in far fewer passes over the data; in the order of the curve it explodes
within the first one, at the step that its own order foretells. With the values of the text it does
not get there.

Source: Exercise 1. Command: python experiments/study_one_sample.py
"""

import sgdstudy as ss
from answers.study_one_sample import answer, passes, short

OWN = "theory: the order's own steps"


class Options(ss.Options):
    seeds: int = 8
    """orders"""
    epsilon: float = 0.1
    """stop once the running loss of an epoch is below"""
    passes: int = 100
    """the most epochs"""


def arms(o):
    one = ss.Arm("curve", "stochastic descent proper", optimizer="notebook", batch_size=1, lr=2e-4)
    one = one.but(epochs=o.passes, stop=("running", o.epsilon), seeds=o.seed_range())
    text = one.but("the text's values: 1e-5, 1e-3, 100", lr=1e-5, stop=("running", 1e-3))
    yield "one sample, prose", text.but(color="green")  # blue and red are those of the orders
    yield "one sample, shuffled", one
    yield "one sample, sorted", one.but("along the curve", order="sequential")


def claims(o, runs):
    run = runs["one sample, sorted"]
    steps, overflow = run.n_steps[0], ss.Known(ss.expect(run).first_overflow[0], source=OWN)
    yield ss.Claim("first_non_finite_loss", "one sample, sorted", steps, overflow)
    yield from ss.predicted_claims(runs)


def all_at_once(config):
    """Return the arm that takes all samples at once, by the same rule."""
    return ss.Arm("curve", lr=config.lr, stop=config.stop, epochs=1_000_000)


def picture(o, runs, value):
    prose, one, ordered = runs.values()
    names = {ss.say("shuffled"): one, ss.say("along the curve"): ordered}
    names[ss.say("shuffled, lr 1e-5")] = prose
    same = {"limits": (1e-2, 1e8)}
    first = ss.figures.lines.within_epoch(names, title=ss.say("the first pass"), log="xy", **same)
    same |= {"title": ss.say("pass by pass"), "epsilon": o.epsilon}
    ends = ss.figures.lines.by_epoch(names, "running_loss", **same)
    title = ss.say(
        """One sample at a time, shuffled, is below {epsilon} {stop}; along the curve the loss is
        not finite any more after {n} of {d} steps""",
        epsilon=o.epsilon,
        stop=one.when(),
        n=value["first_non_finite_loss"],
        d=one.problem.d,
    )
    due = ss.expect(all_at_once(one.config)).stop_epoch
    note = (
        ""
        if due is None
        else ss.say("All at once, theory: {passes} (Exercise 1).", passes=passes(due.value))
    )
    return ss.figures.Chart(title, [first, ends], note)


def figures(runs):
    ended = runs.select("*", without="*sorted")  # that one ends no epoch
    yield "path.png", ss.figures.path(ended, 0, 2, 100)


ask = {
    ("stop_epoch", "one sample, shuffled"): "All samples at once need 9340 epochs. One at a time?",
    ("first_non_finite_loss", "one sample, sorted"): "And along the curve: after how many steps?",
}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
