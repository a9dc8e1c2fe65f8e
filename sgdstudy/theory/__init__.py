"""What theory expects of a least-squares problem, before anything runs.

Pure float64 functions of `LeastSquares` (features, minimiser, Hessian H, least loss L*). With
z = w - w* the loss is L* + z^T H z / 2, a full-batch step is z -> (I - lr H) z, and a step on a
batch b is z -> (I - lr H_b) z - lr g_b, g_b the batch's gradient at w*.

An argument of one name means one thing throughout, and is said where it means more: `ls` the
moments of a problem, `d` its samples, `batch_size` B of them a step, `lr` the step size, `w0` the
parameters at the start `(p,)`, `replacement` whether a batch may hold a sample twice, `problem`
and `config` what is trained and how, `confidence` of an interval, `seed` of the draws.

Promises: nothing here looks at a run; what is not known is refused, never guessed.
May import: `recipe`, `quantities`, `problems` and below.
Start reading: `descent.py`, `order_batches.py` and `fixed_order.py`, `random_step.py`; `expect.py`
binds them to an arm.
"""

import inspect

from sgdstudy.theory.batch_size import (
    ExpectedPath,
    critical_batch_size,
    critical_size_of_lr,
    expected_path,
    expected_steps,
    lr_limit_to_reach,
    noise_terms,
    time_above,
)
from sgdstudy.theory.batch_vs_full import (
    Gap,
    batch_norm_spread,
    finite_share,
    gap,
    gradients,
    jensen_bounds,
    lucky_share,
    mean_square_batch_norm,
    noise_scale,
    trace_sigma,
    triangle_bounds,
    two_batch_bias,
    two_batch_estimate,
)
from sgdstudy.theory.checked import checked
from sgdstudy.theory.descent import (
    descent_loss,
    descent_stop,
    descent_w,
    eigenvalues,
    float32_floor,
    gradient_bound,
    growth_per_epoch,
    lr_best_asymptotic,
    lr_best_for_epsilon,
    lr_limit,
    moments,
)
from sgdstudy.theory.drift import (
    SampleLaw,
    Tracking,
    best_tracking_lr,
    sample_law,
    stationary_tracking,
    tracking_lr_limit,
    tracking_path,
    tracking_terms,
    uniform_law,
)
from sgdstudy.theory.estimates import Estimate
from sgdstudy.theory.fastest import Fastest, fastest_steps
from sgdstudy.theory.fixed_order import (
    Growth,
    OrderLosses,
    critical_lr,
    epoch_map,
    exact_radius,
    fixed_order_losses,
    fixed_point,
    fixed_point_loss,
    growth,
    order_losses,
    spectral_radius,
    usable_lr,
)
from sgdstudy.theory.mean_absolute import least_absolute_gradient
from sgdstudy.theory.medians import draw_within, ratio_of_means
from sgdstudy.theory.order_batches import Batches, batches, batches_by_epoch
from sgdstudy.theory.particles import Estimated, reshuffling_growth, reshuffling_lr_limit
from sgdstudy.theory.paths import PRODUCTS, first_overflow, log_rate, lyapunov, lyapunov_zero_lr
from sgdstudy.theory.random_order import (
    expected_losses,
    first_below,
    reshuffling_factor,
    shuffle_once_factor,
)
from sgdstudy.theory.random_step import MOST_PARAMETERS, Moments, step_moments
from sgdstudy.theory.rates import (
    Law,
    fixed_order_law,
    independent_error,
    kept_order_error,
    law_at,
    log_minimum,
    log_slope,
    minimum_of_means,
    rate_laws,
    reshuffling_bias,
    slope_interval,
    slope_samples,
)
from sgdstudy.theory.reshuffling import (
    mode_noise,
    reshuffled_losses,
    reshuffling_losses,
    reshuffling_radius,
    reshuffling_share,
    resized_reshuffling_losses,
)
from sgdstudy.theory.rounding import sum_rounding
from sgdstudy.theory.stability import growth_per_step, linearised, sharpness_limit
from sgdstudy.theory.stationary import (
    mean_square_lr_limit,
    mean_square_radius,
    ou_covariance,
    stationary_covariance,
    stationary_excess,
)
from sgdstudy.theory.step_sizes import (
    averaged_excess_law,
    averaged_losses,
    polyak_losses,
    projected,
    resized_losses,
    scheduled_losses,
)

# all the names above; functions check what people give them, by the names of the arguments
__all__ = sorted(
    name
    for name, value in globals().items()
    if not (name.startswith("_") or name == "checked" or inspect.ismodule(value))
)
for _name in __all__:
    if inspect.isfunction(globals()[_name]):
        globals()[_name] = checked(globals()[_name])
