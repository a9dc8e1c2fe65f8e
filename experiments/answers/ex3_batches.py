"""The answer of Exercise 3."""

import sgdstudy as ss


def short(o, runs, value):
    d = runs["shuffle"].problem.d
    if value["each_sample_once"] == 0:
        yield ss.say(
            """Each of the {d} points appears once in an epoch, all of them in one
            batch.""",
            """Each of the {d} points appears once in an epoch, in {n} batches of
            {size}.""",
            d=d,
            n=value["batches", "shuffle"],
            size=o.batch_size,
        )
    if o.batch_size > 1 and 2 * value["widest_batch"] < width(runs):
        yield ss.say(
            """With shuffle=True the points of a batch come from anywhere on the curve; with
            shuffle=False they are neighbours, a piece that is {piece:.2} wide at most, of
            {width:.2f} (Exercise 6 shows what this does).""",
            piece=ss.text.at_least(value["widest_batch"]),
            width=width(runs),
        )
    for arm, size in (("shuffle", o.batch_size), ("ragged", o.ragged)):
        if value["last_batch", arm] < size:
            yield ss.say(
                """Batches of {size} do not divide the {d} points: the last one has only
                {last}.""",
                size=size,
                d=d,
                last=value["last_batch", arm],
            )
            return


def answer(o, runs, value):
    d = runs["shuffle"].problem.d
    yield ss.say(
        """A DataLoader cuts the {d} points into batches of `batch_size`; an epoch is one pass
        over all of them. There are ⌈d / batch_size⌉ batches (rounded up).""",
        d=d,
    )
    for size, arm in {o.batch_size: "shuffle", o.ragged: "ragged"}.items():
        yield ss.say(
            "With batch_size={size} that is one batch.",
            "With batch_size={size} they are {n} batches.",
            n=value["batches", arm],
            size=size,
        )
        if value["last_batch", arm] < size:
            yield ss.say(
                """The last one has {last}. A plain mean of the batch losses counts each of its
                points {times:.4} times as much as another (Exercise 7).""",
                last=value["last_batch", arm],
                times=size / value["last_batch", arm],
            )
    yield None
    if redrawn(runs):
        yield ss.say("""With shuffle=True the order is a random permutation, and a new one in every
            epoch: the batches of the first two epochs are not the same.""")
    else:
        yield ss.say("With shuffle=True the order is a random permutation.")
    yield ss.say(
        """With shuffle=False it is that of the file, here from left to right: a batch is a
        piece of the curve, {piece:.2} wide at most.""",
        piece=ss.text.at_least(value["widest_batch"]),
    )
    yield None
    same = [claim.holds for claim in value if claim.name == "same_as_dataloader"]
    if any(same) and False not in same:
        yield ss.say("""The trainer of this project draws the very permutations of DataLoader: fed
            by it, with the same seed, a loop has the same losses and gradients in every batch, but
            for rounding.""")


def headline(o, runs, value):
    """The title of the picture: how much of the curve a batch spans."""
    return ss.say(
        """Of the {width:.4} that x spans, a batch of {size} spans {shuffled:.3} on average if
        shuffled, {piece:.2} at most if sorted""",
        size=o.batch_size,
        width=width(runs),
        shuffled=value["mean_width"],
        piece=ss.text.at_least(value["widest_batch"]),
    )


def ask(o):
    return {
        ("batches", "ragged"): ss.say(
            "2000 samples in batches of {size} (--ragged): how many batches an epoch?",
            size=o.ragged,
        ),
        ("last_batch", "ragged"): ss.say("And how many samples in the last one?"),
        ("mean_width", "shuffle"): ss.say(
            "x goes from -10 to 10: how much of it does a batch of {size}, shuffled, span?",
            size=o.batch_size,
        ),
        ("widest_batch", "sequential"): ss.say("And with shuffle=False?"),
    }


def width(runs):
    """Return how wide the whole curve is."""
    x = runs["sequential"].problem.x
    return float(x.max() - x.min())


def redrawn(runs):
    """Whether the first two epochs are cut into other batches, as their losses show."""
    first, second = (
        runs["shuffle"].array("steps", "loss", epochs=slice(k, k + 1))[:, 0] for k in (1, 2)
    )
    return len(second) > 0 and len(first) > 1 and bool((first != second).any())
