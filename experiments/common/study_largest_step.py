"""What study_largest_step is made of: its lines, and their largest steps."""

import sgdstudy as ss

POINTS = "curve, 256 points"
LINES = {  # line -> label noise, excess loss to reach, batch sizes of the figure
    "curve": (0.0, 0.1, (1, 2, 4, 8, 32)),  # 0.1: the notebook's target
    "stairs": (0.0, 0.001, (1, 2, 4, 8, 16, 64, 256)),
    "noisy stairs to 0.03": (8**-0.5, 0.03, (1, 4, 16, 64, 256, 1024)),
    "noisy stairs to 0.001": (8**-0.5, 0.001, (4, 16, 64, 256, 1024)),
}
NOISELESS, WRONG = "beyond the limit, no noise", "noisy stairs to 0.001, step for the start"
BETWEEN, BEYOND = "curve, between both limits", "curve, beyond both limits"


def planned(line, size, excess=None):
    """Return the arm of a line at the largest step that can reach an excess loss."""
    noise, target, sizes = LINES[line]
    stairs = line != "curve" and ss.problems.staircase(noise, max(256, *sizes))
    given = {"batch_size": size, "order": "with_replacement", "diagnostics": "off"}
    given |= {"metrics": ["full_loss"], "record_rows": 10**9}  # every step counts
    arm = ss.Arm(stairs or ss.problems.even_parabola(name=POINTS), **given)
    return arm.but(lr=ss.rounded(ss.expect(arm).lr_limit_to_reach(excess or target)))
