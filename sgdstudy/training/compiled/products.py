"""Products of large matrices in C++, a block of the result at a time, held in registers.

Every sum is taken in the order of k, whatever the blocks: the bits are those of a plain loop.
"""

# rows i, columns j, sums over k; a, b and c are of any strides
PRODUCT = {
    "one replica": """\
#ifdef __AVX512F__
enum { WIDE = 64 / sizeof(T) };
#else
enum { WIDE = 32 / sizeof(T) };
#endif
enum { ROWS = 4, VECTORS = 2, DEEP = 512, FEW_ROWS = 16 };
typedef T Wide __attribute__((vector_size(WIDE * sizeof(T)), aligned(sizeof(T)), may_alias));
// `rows` rows and n columns, of as many as the vectors hold, in b too; c holds the sums so far
template <int rows, int vectors> static inline void tile(
    const T* a, Int ai, Int ak, const T* b, Int bk, T* c, Int ci, Int cj, Int n, Int depth,
    bool go_on) {
    enum { COLUMNS = vectors * WIDE };
    Wide acc[rows][vectors];
    alignas(64) T line[COLUMNS];
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < COLUMNS; j++) line[j] = go_on && j < n ? c[i * ci + j * cj] : 0;
        UNROLL for (int v = 0; v < vectors; v++) acc[i][v] = *(const Wide*)(line + v * WIDE);
    }
    for (Int k = 0; k < depth; k++) {
        Wide right[vectors];
        UNROLL for (int v = 0; v < vectors; v++)
            right[v] = *(const Wide*)(b + k * bk + v * WIDE);
        UNROLL for (int i = 0; i < rows; i++) {
            const T left = a[i * ai + k * ak];
            UNROLL for (int v = 0; v < vectors; v++) acc[i][v] += left * right[v];
        }
    }
    for (int i = 0; i < rows; i++) {
        UNROLL for (int v = 0; v < vectors; v++) *(Wide*)(line + v * WIDE) = acc[i][v];
        for (int j = 0; j < n; j++) c[i * ci + j * cj] = line[j];
    }
}
static constexpr Int padded(Int rows, Int columns) {  // what the blocks of a result hold
    const Int wide = columns > WIDE ? VECTORS * WIDE : WIDE;
    return (rows + ROWS - 1) / ROWS * ROWS * ((columns + wide - 1) / wide * wide);
}
template <int M, int N, int K> static void product(const T* a, Int ai, Int ak, const T* b, Int bk,
                                                   Int bj, T* c, Int ci, Int cj) {
    enum { vectors = N > WIDE ? VECTORS : 1, COLUMNS = vectors * WIDE };
    // the transpose where it fills its blocks better: a row takes a fraction of a register
    if constexpr (K < DEEP && padded(N, M) < padded(M, N))
        return product<N, M, K>(b, bj, bk, a, ak, ai, c, cj, ci);
    alignas(64) T packed[(K < DEEP ? K : DEEP) * COLUMNS];
    for (Int k = 0; k < K; k += DEEP) for (Int j = 0; j < N; j += COLUMNS) {
        const Int depth = K - k < DEEP ? K - k : DEEP, n = N - j < COLUMNS ? N - j : COLUMNS;
        const bool pack = M > FEW_ROWS || bj != 1 || n < COLUMNS;
        if (pack) for (Int e = 0; e < depth; e++) for (Int f = 0; f < COLUMNS; f++)
            packed[e * COLUMNS + f] = f < n ? b[(k + e) * bk + (j + f) * bj] : 0;
        const T* right = pack ? packed : b + k * bk + j;
        const Int step = pack ? (Int)COLUMNS : bk;
        Int i = 0;
        for (; i + ROWS <= M; i += ROWS)
            tile<ROWS, vectors>(a + i * ai + k * ak, ai, ak, right, step, c + i * ci + j * cj,
                                ci, cj, n, depth, k > 0);
        if constexpr (M % ROWS != 0)
            tile<M % ROWS, vectors>(a + i * ai + k * ak, ai, ak, right, step, c + i * ci + j * cj,
                                    ci, cj, n, depth, k > 0);
    }
}
""",
    "lanes": """\
#ifdef __AVX512F__
enum { ROWS = 4, COLUMNS = 4 };
#else
enum { ROWS = 2, COLUMNS = 2 };
#endif
template <int rows, int columns> static inline void tile(
    const V* a, Int ai, Int ak, const V* b, Int bk, Int bj, V* c, Int ci, Int cj, Int depth) {
    V acc[rows][columns];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < columns; j++) acc[i][j] = V0;
    for (Int k = 0; k < depth; k++) {
        V right[columns];
        UNROLL for (int j = 0; j < columns; j++) right[j] = b[k * bk + j * bj];
        UNROLL for (int i = 0; i < rows; i++) {
            const V left = a[i * ai + k * ak];
            UNROLL for (int j = 0; j < columns; j++) acc[i][j] += left * right[j];
        }
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < columns; j++) c[i * ci + j * cj] = acc[i][j];
}
template <int rows, int N> static inline void band(
    const V* a, Int ai, Int ak, const V* b, Int bk, Int bj, V* c, Int ci, Int cj, Int depth) {
    Int j = 0;
    for (; j + COLUMNS <= N; j += COLUMNS)
        tile<rows, COLUMNS>(a, ai, ak, b + j * bj, bk, bj, c + j * cj, ci, cj, depth);
    if constexpr (N % COLUMNS != 0)
        tile<rows, N % COLUMNS>(a, ai, ak, b + j * bj, bk, bj, c + j * cj, ci, cj, depth);
}
template <int M, int N, int K> static void product(const V* a, Int ai, Int ak, const V* b, Int bk,
                                                   Int bj, V* c, Int ci, Int cj) {
    Int i = 0;
    for (; i + ROWS <= M; i += ROWS)
        band<ROWS, N>(a + i * ai, ai, ak, b, bk, bj, c + i * ci, ci, cj, K);
    if constexpr (M % ROWS != 0)
        band<M % ROWS, N>(a + i * ai, ai, ak, b, bk, bj, c + i * ci, ci, cj, K);
}
""",
}
