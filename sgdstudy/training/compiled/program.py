"""The C++ around a step: vectors of replicas, ATen's order of sums, loops over steps.

`V` is one number of each of L replicas ("lanes") side by side, or of one replica (L = 1, where
the compiler vectorises over samples instead). The text does the same arithmetic for any L, so a
replica's bits do not depend on which others run beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sgdstudy.training.compiled.loops import UNROLLED
from sgdstudy.training.compiled.operations import FUNCTIONS
from sgdstudy.training.compiled.products import PRODUCT
from sgdstudy.training.compiled.rules import Rule

LARGE_BYTES = 500_000  # data beyond this does not stay in the second-level cache
# What is fetched before it is needed, in numbers: indices this far ahead, one in every line; the
# samples of indices that far ahead; the first lines of what a step writes.
FETCHED = {"SOON": 160, "LINE": 8, "AHEAD": 100, "FIRST": 256}
PART = 1024  # parameters that move, and are looked at, at once; a multiple of 8

_ONE_LANE = """\
typedef T V;
typedef double VD;
#define WIDER(v) ((double)(v))
#define AT(v) (v)
#define lit(x) (x)
#define V0 ((T)0)
#define V1 ((T)1)
#define EACH(e) return e;
#define EACH_INTO(r, e) r = e;
"""
_LANES = """\
typedef T V __attribute__((vector_size(L * sizeof(T))));
typedef double VD __attribute__((vector_size(L * sizeof(double))));
#define WIDER(v) __builtin_convertvector(v, VD)
#define AT(v) (v)[l]
#define lit(x) (V{} + (x))
#define V0 (V{})
#define V1 lit((T)1)
#define EACH(e) V r; for (int l = 0; l < L; l++) r[l] = e; return r;
#define EACH_INTO(r, e) for (int l = 0; l < L; l++) r[l] = e;
"""

_PRELUDE = """\
static inline V v_abs(V a) { return a < V0 ? -a : (a == V0 ? V0 : a); }
static inline V v_fma(V a, V b, V c) { EACH(__builtin_fma%(f)s(AT(a), AT(b), AT(c))) }
static inline V v_pow(V a, V b) { EACH(__builtin_pow%(f)s(AT(a), AT(b))) }
static inline V max_of(const V* p, int n, int stride) {
    V m = p[0];
    for (int k = 1; k < n; k++) { const V v = p[k * stride]; m = (v > m) | (v != v) ? v : m; }
    return m;
}
// ATen's order of additions: ROWS interleaved accumulators, in four cascaded levels
template <int ROWS> static inline void rows_sum(const V* p, Int row, Int col, Int n, V* out) {
    int power = 0; while (((Int)1 << power) < n) power++;
    power = power / 4 > 4 ? power / 4 : 4;
    const Int step = (Int)1 << power, mask = step - 1;
    V acc[4][ROWS];
    for (int j = 0; j < 4; j++) for (int k = 0; k < ROWS; k++) acc[j][k] = V0;
    Int i = 0;
    while (i + step <= n) {
        for (Int j = 0; j < step; j++, i++)
            for (int k = 0; k < ROWS; k++) acc[0][k] += p[i * row + k * col];
        for (int j = 1; j < 4; j++) {
            for (int k = 0; k < ROWS; k++) { acc[j][k] += acc[j - 1][k]; acc[j - 1][k] = V0; }
            if ((i & (mask << (j * power))) != 0) break;
        }
    }
    for (; i < n; i++) for (int k = 0; k < ROWS; k++) acc[0][k] += p[i * row + k * col];
    for (int j = 1; j < 4; j++) for (int k = 0; k < ROWS; k++) acc[0][k] += acc[j][k];
    for (int k = 0; k < ROWS; k++) out[k] = acc[0][k];
}
template <Int n> static inline V sum_inner(const V* p) {  // contiguous memory, 32 bytes at a time
    enum { W = 32 / sizeof(T), vecs = n / W, quads = vecs / 4 };
    if (n < W) {  // four by four
        V acc[4] = {V0, V0, V0, V0};
        Int i = 0;
        for (; i + 4 <= n; i += 4) for (int k = 0; k < 4; k++) acc[k] += p[i + k];
        for (; i < n; i++) acc[0] += p[i];
        return acc[0] + acc[1] + acc[2] + acc[3];
    }
    V last = V0;
    for (Int i = vecs * W; i < n; i++) last += p[i];
    V four[4 * W];
    if (quads) rows_sum<4 * W>(p, 4 * W, 1, quads, four);
    for (int k = 0; k < W; k++) {  // one at a time: W of them at once would not fit the registers
        V part = quads ? four[k] : V0;
        for (Int i = 4 * quads; i < vecs; i++) part += p[i * W + k];
        for (int q = 1; q < 4 && quads; q++) part += four[q * W + k];
        last += part;
    }
    return last;
}
static inline V sum_outer(const V* p, Int n, Int stride) {  // across memory
    V out; rows_sum<1>(p, stride, 0, n, &out); return out;
}
// add |a - b|^2, or |a|^2, of n numbers in float64: in interleaved sums, as many whatever L is
enum { SUMS = P < 8 ? P : 8 };
template <bool less> static inline void add_squares(const V* a, const V* b, Int n, VD* sums) {
    VD acc[SUMS];
    UNROLL for (int k = 0; k < SUMS; k++) acc[k] = sums[k];
    Int j = 0;
    for (; j + SUMS <= n; j += SUMS) UNROLL for (int k = 0; k < SUMS; k++) {
        const VD v = less ? WIDER(a[j + k]) - WIDER(b[j + k]) : WIDER(a[j + k]);
        acc[k] += v * v;
    }
    for (int k = 0; j + k < n; k++) {
        const VD v = less ? WIDER(a[j + k]) - WIDER(b[j + k]) : WIDER(a[j + k]);
        acc[k] += v * v;
    }
    UNROLL for (int k = 0; k < SUMS; k++) sums[k] = acc[k];
}
static inline VD length_of(const VD* sums) {
    VD square = sums[0], odd = {}, r;  // the odd ones apart where they are few, as numpy has them
    UNROLL for (int k = 1; k < SUMS; k++) (P <= 4 && k & 1 ? odd : square) += sums[k];
    square += odd;
    EACH_INTO(r, __builtin_sqrt(AT(square)))
    return r;
}
static inline V first_best(const V* p, int n, int stride) {  // as argmax: NaN is the largest
    V m = p[0], at = V0;
    for (int k = 1; k < n; k++) {
        const V v = p[k * stride];
        const auto better = (v > m) | ((v != v) & (m == m));
        m = better ? v : m; at = better ? lit((T)k) : at;
    }
    return at;
}
"""

# exp and tanh in single precision: by way of float64, without a call, correct to the rounding
_EXPONENTIAL = """\
static inline double exp_d(double x) {
    const double magic = 6755399441055744.0;
    x = x < -200.0 ? -200.0 : x; x = x > 200.0 ? 200.0 : x;
    const double n = x * 1.4426950408889634 + magic, r = x - (n - magic) * 0.6931471805599453;
    double e = 1 / 40320.0;
    e = e * r + 1 / 5040.0; e = e * r + 1 / 720.0; e = e * r + 1 / 120.0; e = e * r + 1 / 24.0;
    e = e * r + 1 / 6.0; e = e * r + 0.5; e = e * r + 1.0; e = e * r + 1.0;
    Int bits; __builtin_memcpy(&bits, &n, sizeof n);
    bits = (Int)((unsigned long long)bits << 52) + ((Int)1023 << 52);
    double power; __builtin_memcpy(&power, &bits, sizeof bits);
    return e * power;
}
static inline double tanh_d(double x) {
    const double y = 1.0 - 2.0 / (exp_d(x + x) + 1.0);
    return (x < 1e-4) & (x > -1e-4) ? x : y;
}
static inline V v_exp(V a) { EACH((T)exp_d(AT(a))) }
static inline V v_tanh(V a) { EACH((T)tanh_d(AT(a))) }
"""

# the batch, gathered, one replica after the other; false: an index beyond the data
_STEP = """\
static inline bool step_%(size)d(const Int* const* at, const Int* end, const T* data, Int D,
                                 const V* w, V* g, V* loss, V* right) {
    MEMORY V x[%(size)d * F], y[%(size)d * M];
    for (int l = 0; l < L; l++) {
        const Int* index = at[l];
        if (index) for (int b = 0; b < %(size)d; b += LINE) __builtin_prefetch(index + b + SOON);
        %(unroll)s
        for (int b = 0; b < %(size)d; b++) {
            const Int i = index ? index[b] : b;
            if (LARGE && index && index + b + AHEAD < end)  // a far sample, on its way already
                __builtin_prefetch(data + index[b + AHEAD] * (F + M));
            if ((unsigned long long)i >= (unsigned long long)D) return false;
            for (int j = 0; j < F; j++) AT(x[b * F + j]) = data[i * (F + M) + j];
            for (int j = 0; j < M; j++) AT(y[b * M + j]) = data[i * (F + M) + F + j];
        }
    }
%(body)s
    return true;
}
"""

# S steps in epochs of m batches. `all`: w and g of every step are kept, else of the first of each
# epoch, and the last w; a replica that diverges stands still then, so that the last w is its own.
_RUN = """\
extern "C" int run(Int R, Int S, Int m, Int all, const Int* sizes, const Int* index,
                   Int index_stride, const T* data, Int D, T* W, T* state, const T* W0,
                   const double* scalars, T* ws, T* losses, T* gradients, double* norms,
                   double* sums) {
    const Int* end = index + R * index_stride;
    for (Int r0 = 0; r0 < R; r0 += L) {
        const int n = R - r0 < L ? R - r0 : L;
        const Int* at[L];
        bool over[L] = {};
        MEMORY V now[P], start[P], st[Q + 1], g[P];
        MEMORY VD total[P];
        V sc[C + 1], loss[1];
        V* const right = 0;
        for (int l = 0; l < L; l++) {
            const Int r = l < n ? r0 + l : R - 1;  // lanes beyond R repeat the last replica
            at[l] = index ? index + r * index_stride : 0;
            for (int j = 0; j < P; j++) AT(now[j]) = W[r * P + j];
            for (int j = 0; j < P; j++) AT(start[j]) = W0[r * P + j];
            for (int j = 0; j < Q; j++) AT(st[j]) = state[r * Q + j];
        }
        T *to = ws + r0 * P, *tg = gradients + r0 * P;
        double* ts = sums + r0 * P;
        Int batch = 0;
        for (Int s = 0; s < S; s++) {
            bool good = false;
            switch (sizes[s]) {
%(cases)s
            }
            if (!good) return 1;
            for (int c = 0; c < C; c++) sc[c] = lit((T)scalars[s * C + c]);
%(before)s
            VD squares[3][SUMS] = {};  // of the gradient, the update, the way from the start
            add_squares<false>(g, g, P, squares[0]);
            const VD length = length_of(squares[0]);
            bool still = false;
            for (int l = 0; l < n && !all; l++) {
                over[l] |= !__builtin_isfinite(AT(loss[0]) + AT(length));
                still |= over[l];
            }
            if (batch == 0) {  // the sums go on from those of an earlier part of the epoch
                for (int l = 0; l < n; l++)
                    for (int j = 0; j < P; j++) AT(total[j]) = ts[l * P + j];
            }
            const double samples = sizes[s];
            for (int first = 0; first < P; first += PART) {  // what is looked at stays in the cache
                const int last = P - first < PART ? P : first + PART;
                V old[P < PART ? P : PART];
                for (int j = first; j < last; j++) old[j - first] = now[j];
                for (int j = first; j < last; j++) {
                    V &w = now[j], d = g[j];
%(rule)s
                }
                add_squares<true>(now + first, old, last - first, squares[1]);
                add_squares<true>(old, start + first, last - first, squares[2]);
                for (int j = first; j < last; j++) total[j] += WIDER(g[j]) * samples;
                for (int l = 0; l < n && still; l++) if (over[l])
                    for (int j = first; j < last; j++) AT(now[j]) = AT(old[j - first]);
            }
            const VD lengths[3] = {length, length_of(squares[1]), length_of(squares[2])};
            T* tl = losses + s * R + r0;
            for (int l = 0; l < n; l++) {
                tl[l] = AT(loss[0]);
                for (int k = 0; k < 3; k++) norms[(k * S + s) * R + r0 + l] = AT(lengths[k]);
            }
            __builtin_prefetch(tl + 2 * R, 1);
            for (int k = 0; k < 3; k++) for (int l = 0; l < L; l += LINE)
                __builtin_prefetch(norms + (k * S + s + 2) * R + r0 + l, 1);
            if (all) {
                for (int k = 0; k < L * P && k < FIRST; k += LINE) {  // other pages: they take long
                    __builtin_prefetch(to + 2 * R * P + k, 1);
                    __builtin_prefetch(tg + 2 * R * P + k, 1);
                }
            }
            if (all || batch == 0) {
                for (int l = 0; l < n; l++) for (int j = 0; j < P; j++) tg[l * P + j] = AT(g[j]);
                tg += R * P;
            }
            batch++;
            if (all || batch == m) {
                for (int l = 0; l < n; l++) for (int j = 0; j < P; j++) to[l * P + j] = AT(now[j]);
                to += R * P;
            }
            if (batch == m) {
                for (int l = 0; l < n; l++)
                    for (int j = 0; j < P; j++) ts[l * P + j] = AT(total[j]);
                ts += R * P;
                batch = 0;
            }
            for (int l = 0; l < L; l++) if (index) at[l] += sizes[s];
        }
        for (int l = 0; l < n; l++) {
            for (int j = 0; j < P; j++) W[(r0 + l) * P + j] = AT(now[j]);
            for (int j = 0; j < Q; j++) state[(r0 + l) * Q + j] = AT(st[j]);
        }
    }
    return 0;
}
"""

# Loss, gradient and right answers of all samples, a block at a time, added up in float64. Returns
# how many samples that were: of a rest whose size no step has, torch takes care.
_EVALUATE = """\
extern "C" Int evaluate(Int R, const T* samples, Int D, const T* W,
                        double* losses, double* gradients, double* rights) {
    static const Int* const at[L] = {};
    const Int* const end = 0;
    Int done = 0;
    for (Int r0 = 0; r0 < R; r0 += L) {
        const int n = R - r0 < L ? R - r0 : L;
        MEMORY V now[P], g[P];
        MEMORY double sum[P * L];
        V loss[1], right[1];
        double total[L] = {}, hits[L] = {};
        for (int l = 0; l < L; l++) {
            const Int r = l < n ? r0 + l : R - 1;
            for (int j = 0; j < P; j++) AT(now[j]) = W[r * P + j];
        }
        for (int k = 0; k < P * L; k++) sum[k] = 0;
        for (done = 0; done < D;) {
            const Int size = D - done < BLOCK ? D - done : BLOCK;
            const T* data = samples + done * (F + M);
            right[0] = V0;
            bool good = false;
            switch (size) {
%(cases)s
            }
            if (!good) break;
            for (int l = 0; l < L; l++) {
                total[l] += size * (double)AT(loss[0]);
                hits[l] += AT(right[0]);
            }
            for (int j = 0; j < P; j++)
                for (int l = 0; l < L; l++) sum[j * L + l] += size * (double)AT(g[j]);
            done += size;
        }
        for (int l = 0; l < n; l++) {
            losses[r0 + l] = total[l];
            rights[r0 + l] = hits[l];
            for (int j = 0; j < P; j++) gradients[(r0 + l) * P + j] = sum[j * L + l];
        }
    }
    return done;
}
"""


def program(
    *,
    steps: Mapping[int, str],
    rule: Rule,
    p: int,
    data: torch.Tensor,
    widths: tuple[int, int],
    lanes: int,
    on_stack: bool,
    block: int,
) -> str:
    """Return the C++ text of `run`, and of `evaluate`.

    Args:
        steps: the statements that compute loss and gradient, by batch size.
        rule: how parameters move.
        p: number of parameters.
        data: the samples, x and y side by side, `(d, F + M)`.
        widths: F and M.
        lanes: replicas side by side.
        on_stack: whether a step's values are few enough for the stack.
        block: samples at once when all of them are evaluated, a batch size; 0: they are not.
    """
    single = data.dtype == torch.float32
    f = "f" if single else ""
    text = "\n".join(steps.values()) + "\n".join([*rule.lines, *rule.before])
    inlined = ("exp", "tanh") if single else ()
    functions = [
        f"static inline V v_{name}(V a) {{ EACH(__builtin_{name}{f}(AT(a))) }}"
        for name in FUNCTIONS
        if f"v_{name}(" in text and name not in inlined
    ]
    counts = {"P": p, "Q": rule.n_state * p, "C": len(rule.scalars), "L": lanes}
    counts |= {
        "PART": PART,
        "BLOCK": block,
        "F": widths[0],
        "M": widths[1],
        "LARGE": int(data.nbytes > LARGE_BYTES),
        **FETCHED,
    }
    names = ", ".join(f"{name} = {value}" for name, value in counts.items())
    cases = "\n".join(
        f"            case {n}: good = step_{n}(at, end, data, D, now, g, loss, right); break;"
        for n in steps
    )
    return "\n".join(
        [
            "typedef long long Int;",
            f"typedef {'float' if single else 'double'} T;",
            f"enum {{ {names} }};",
            f'#define UNROLL _Pragma("GCC unroll {UNROLLED}")',
            # aligned: where g++ 12 vectorises what 16 leave over, it takes arrays to be so
            f"#define MEMORY alignas(64) {'' if on_stack else 'static thread_local'}",
            _ONE_LANE if lanes == 1 else _LANES,
            _PRELUDE % {"f": f},
            *functions,
            _EXPONENTIAL if single else "",
            PRODUCT["one replica" if lanes == 1 else "lanes"] if "product<" in text else "",
            *(_STEP % _gather(size, body, sum(widths)) for size, body in steps.items()),
            _RUN % {"cases": cases, "before": _before(rule), "rule": _update(rule)},
            _EVALUATE % {"cases": cases} if block else "",
        ]
    )


def _gather(size: int, body: str, width: int) -> dict[str, object]:
    """Return what a step's text is filled with; the gathering of few numbers is unrolled."""
    few = size * width <= 2 * UNROLLED
    return {"size": size, "body": body, "unroll": "UNROLL" if few else ""}


def _before(rule: Rule) -> str:
    """Return what comes once a step: the scalars' names, and the rule's own statements."""
    names = [f"const V {name} = sc[{k}];" for k, name in enumerate(rule.scalars)]
    return "\n".join(" " * 12 + line for line in [*names, *rule.before])


def _update(rule: Rule) -> str:
    """Return the rule's statements for parameter j, its names bound to arrays."""
    names = [f"V& s{k} = st[{k} * P + j];" for k in range(rule.n_state)]
    return "\n".join(" " * 16 + line for line in [*names, *rule.lines])
