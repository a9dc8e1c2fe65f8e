"""Does shuffling still reach K⁻³ where the model misses the target systematically?

Hypothesis: with a step size proportional to 1/K, the squared distance to the minimiser falls as
K⁻³ where every epoch is shuffled anew, as long as residuals do not go with the features. Here a
cubic is fitted by a parabola: the mean over all orders of what an epoch adds does not vanish, and a
bias of K⁻² is left in the end, -lr / (2 d) H⁻¹ Σ Hᵢ gᵢ.

Source: Mishchenko, Khaled, Richtarik (2020); linear algebra (`ss.theory.rate_laws`).
Command: python experiments/study_shuffling_bias.py
"""

from functools import partial

import sgdstudy as ss
from answers import epochs
from answers.study_shuffling_bias import answer, halves, law, short

TIME = 6  # lr d K: with Hessian 2 the start is forgotten to exp(-12)
LINE = "shuffle, cubic"
LAW = ss.to_say("theory: noise and bias of the sum over pairs, large K; four standard errors")


class Options(ss.Options):
    seeds: int = 200
    longest: int = 1024
    """the largest number of epochs K"""
    quick: bool = False
    """half of the work: K = 32 to 512, or to longest if that is less"""


def arms(o):
    first, last = (32, min(o.longest, 512)) if o.quick else (8, o.longest)
    if last < 8 * first:
        least = f"longest must be at least {8 * first}, got {o.longest}"
        raise ss.InputError(f"{least}: four K, two slopes")
    ks = [first * 2**i for i in range((last // first).bit_length())]
    arm = ss.Arm("legendre", batch_size=1, diagnostics="off", metrics=["full_loss"])
    arm = arm.but(problem=ss.problems.legendre("cubic"), record_rows=20_000)  # all epochs are kept
    for k in ks:
        # the bias, the same for all seeds, is most of a long run's error: few will do
        few = k in ks[len(ks) // 2 :]
        given = {"seeds": o.seed_range()[: -(-o.seeds // 4) if few else None], "epochs": k}
        given |= {"lr": TIME / (arm.problem.d * k), "charted": k == ks[-1]}
        yield f"{LINE} K={k}", arm.but(epochs(k), **given)


def claims(o, runs):
    (k, samples), (large, late) = halves(runs)
    yield ss.Claim("slope_small_K", LINE, float(ss.theory.log_slope(k, samples.mean(1))))
    yield ss.Claim("slope_small_K_95", LINE, ss.theory.slope_interval(k, samples))
    yield ss.Claim("slope_large_K_95", LINE, ss.theory.slope_interval(large, late))
    known = ss.theory.law_at(law(runs), large)
    slope = ss.Estimate.slope(large, late).beside(ss.theory.log_slope(large, known))
    yield ss.Claim.estimated("slope_large_K", LINE, *slope, LAW)
    height = ss.Estimate.height(late, known).beside(1)
    yield ss.Claim.estimated("error_over_theory", LINE, *height, LAW)
    run = [*runs.values()][-1]
    bias = ss.expect(run).reshuffling_bias
    along = run.from_minimiser()[-1] @ bias / (bias @ bias)
    yield ss.Claim.estimated("mean_over_bias", LINE, *ss.Estimate.mean(along).beside(1), LAW)


def table(o, runs):
    """Return mean, 95 % interval and theory of every K."""
    found = [(LINE, r.config.epochs, ss.Estimate.mean(r.distance**2)) for r in runs.values()]
    rows = ss.figures.points(found)
    return rows.assign(theory=ss.theory.law_at(law(runs), rows["x"]))


def picture(o, runs, value):
    known, names = law(runs), {LINE: ss.say("shuffled")}
    names |= {"noise": ss.say("noise, K⁻³"), "bias": ss.say("bias, K⁻²")}
    parts = {LINE: known, "noise": {-3: known[-3]}, "bias": {-2: known[-2]}}
    laws = {line: partial(ss.theory.law_at, terms) for line, terms in parts.items()}
    x = ss.say("epochs K, with a step size of {time} / (d K)", time=TIME)
    axes = {"x": x, "y": ss.say("mean of |w - w*|²")}
    panel = ss.figures.lines.with_laws(table(o, runs), laws, names, **axes)
    (small, _), (large, _) = halves(runs)
    title = ss.say(
        """A cubic fitted by a parabola: the error of shuffling falls with the power {slope:.2f} of
        K up to {small}, with {later:.2f} from {large} on""",
        slope=value["slope_small_K"],
        small=small[-1],
        later=value["slope_large_K"],
        large=large[0],
    )
    note = ss.say("What does not average out is a bias, in the end.")
    return ss.figures.Chart(title, [panel], note)


tables = {"rates.csv": table}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
