// Winograd's convolution F(4 x 4, 3 x 3), channels last, stride 1, mirrored border: in single precision, or (Half) with
// products of bfloat16 that are summed in single precision.
// Built and called by native.py, which says what the arrays are. A group of cells is transformed, multiplied and
// transformed back while it is in the processor's caches; groups are shared out among threads.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <vector>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, ROWS = 14;  // 28 of 32 registers hold sums
#else
constexpr int LANES = 8, ROWS = 6;  // 12 of 16
#endif
constexpr int WIDE = 2 * LANES, CELLS = 4 * ROWS, OUT = 4, SEEN = 6, PRODUCTS = SEEN * SEEN;

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4)));

inline Vector load(const float *from) { return *reinterpret_cast<const Vector *>(from); }
inline void store(float *to, Vector value) { *reinterpret_cast<Vector *>(to) = value; }

enum class Finish : int { plain, positive, added };

struct Image {
    const float *pixels;
    int64_t rows, columns, channels;
    int doubled;  // 1: each pixel stands for 2 x 2
};

// The row of n that stands at place i: mirrored at the border; where rows are doubled that is the border repeated, which
// keeps equal pairs equal. Farther out nothing that is kept depends on the value.
inline int64_t row_at(int64_t i, int64_t n, int doubled) {
    if (doubled) return std::clamp<int64_t>(i >> 1, 0, n - 1);
    if (i < 0) i = -i;
    if (i >= n) i = 2 * (n - 1) - i;
    return std::max<int64_t>(i, 0);
}

inline void into(const Vector *x, Vector *o, int step) {
    const Vector a = x[4 * step] - 4.0f * x[2 * step], b = x[3 * step] - 4.0f * x[step];
    const Vector c = x[4 * step] - x[2 * step], d = 2.0f * (x[3 * step] - x[step]);
    o[0] = 4.0f * (x[0] - x[2 * step]) + c;
    o[1] = a + b;
    o[2] = a - b;
    o[3] = c + d;
    o[4] = c - d;
    o[5] = (x[5 * step] - x[3 * step]) - 2.0f * d;
}

inline void back(const Vector *m, Vector *o, int step) {
    const Vector s = m[step] + m[2 * step], d = m[step] - m[2 * step];
    const Vector t = m[3 * step] + m[4 * step], e = m[3 * step] - m[4 * step];
    o[0] = m[0] + s + t;
    o[1] = d + 2.0f * e;
    o[2] = s + 4.0f * t;
    o[3] = d + 8.0f * e + m[5 * step];
}

// One cell: (6, 6, channels) of the image -> spread[product][cell][channel].
template <class Kind>
void spread_cell(const Image &image, int64_t row, int64_t column, typename Kind::Stored *spread, int cell) {
    const int64_t channels = image.channels;
    const float *from[PRODUCTS];
    for (int i = 0; i < SEEN; i++)
        for (int j = 0; j < SEEN; j++)
            from[i * SEEN + j] =
                image.pixels + (row_at(row + i - 1, image.rows, image.doubled) * image.columns +
                                row_at(column + j - 1, image.columns, image.doubled)) * channels;
    for (int64_t c = 0; c < channels; c += LANES) {
        Vector seen[PRODUCTS], half[PRODUCTS], whole[SEEN];
        for (int k = 0; k < PRODUCTS; k++) seen[k] = load(from[k] + c);
        for (int i = 0; i < SEEN; i++) into(seen + i * SEEN, half + i * SEEN, 1);
        for (int j = 0; j < SEEN; j++) {
            into(half + j, whole, SEEN);
            for (int i = 0; i < SEEN; i++)
                Kind::put(spread + ((i * SEEN + j) * CELLS + cell) * channels + c, whole[i]);
        }
    }
}

// One cell: products[product][cell][output] -> (4, 4, outputs) of the image that is made, as far as it lies inside.
void gather_cell(const float *products, int cell, const float *bias, Finish finish, float *made, int64_t row,
                 int64_t column, int64_t rows, int64_t columns, int64_t outputs) {
    for (int64_t o = 0; o < outputs; o += LANES) {
        Vector all[PRODUCTS], half[OUT * SEEN], line[OUT];
        const Vector zero = {}, shift = bias ? load(bias + o) : zero;
        for (int k = 0; k < PRODUCTS; k++) all[k] = load(products + (k * CELLS + cell) * outputs + o);
        for (int i = 0; i < SEEN; i++) back(all + i * SEEN, half + i * OUT, 1);
        for (int j = 0; j < OUT; j++) {
            back(half + j, line, OUT);
            if (column + j >= columns) continue;
            for (int i = 0; i < OUT && row + i < rows; i++) {
                Vector value = line[i] + shift;
                float *place = made + ((row + i) * columns + column + j) * outputs + o;
                if (finish == Finish::positive) value = value > zero ? value : zero;
                if (finish == Finish::added) value += load(place);
                store(place, value);
            }
        }
    }
}

// How cells and filters are kept, and how ROWS cells are multiplied by one panel of WIDE outputs.
struct Single {
    typedef float Stored;
    static void put(float *to, Vector value) { store(to, value); }
    static void multiply(const float *cells, const float *panel, float *products, int64_t channels, int64_t outputs) {
        Vector sums[ROWS][2] = {};
        for (int64_t c = 0; c < channels; c++) {
            const Vector left = load(panel + c * WIDE), right = load(panel + c * WIDE + LANES);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                const float one = cells[r * channels + c];
                sums[r][0] += one * left;
                sums[r][1] += one * right;
            }
        }
        for (int r = 0; r < ROWS; r++) {
            store(products + r * outputs, sums[r][0]);
            store(products + r * outputs + LANES, sums[r][1]);
        }
    }
};

#ifdef __AVX512BF16__
// Two channels at a time: a panel holds [channels / 2][WIDE][2].
struct Half {
    typedef uint16_t Stored;
    static void put(uint16_t *to, Vector value) {
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), (__m256i)_mm512_cvtneps_pbh((__m512)value));
    }
    static void multiply(const uint16_t *cells, const uint16_t *panel, float *products, int64_t channels,
                         int64_t outputs) {
        __m512 sums[ROWS][2] = {};
        for (int64_t c = 0; c < channels; c += 2) {
            const __m512bh left = (__m512bh)_mm512_loadu_si512(panel + c * WIDE);
            const __m512bh right = (__m512bh)_mm512_loadu_si512(panel + c * WIDE + WIDE);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                int32_t pair;
                std::memcpy(&pair, cells + r * channels + c, sizeof pair);
                const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
                sums[r][0] = _mm512_dpbf16_ps(sums[r][0], both, left);
                sums[r][1] = _mm512_dpbf16_ps(sums[r][1], both, right);
            }
        }
        for (int r = 0; r < ROWS; r++) {
            _mm512_storeu_ps(products + r * outputs, sums[r][0]);
            _mm512_storeu_ps(products + r * outputs + LANES, sums[r][1]);
        }
    }
};
#endif

template <class Kind>
int convolve(Image image, const typename Kind::Stored *panels, const float *bias, Finish finish, float *made,
             int64_t outputs, int threads) {
    typedef typename Kind::Stored Stored;
    const int64_t rows = image.rows << image.doubled, columns = image.columns << image.doubled;
    const int64_t channels = image.channels, across = (columns + OUT - 1) / OUT;
    const int64_t cells = ((rows + OUT - 1) / OUT) * across, groups = (cells + CELLS - 1) / CELLS;
    std::atomic<int64_t> next{0};
    std::atomic<int> failed{0};
    auto work = [&]() {
        const size_t in = size_t(PRODUCTS) * CELLS * channels * sizeof(Stored);
        const size_t out = size_t(PRODUCTS) * CELLS * outputs * sizeof(float);
        char *scratch = static_cast<char *>(std::aligned_alloc(64, in + out));
        if (!scratch) {
            failed = 1;
            return;
        }
        std::memset(scratch, 0, in + out);
        Stored *spread = reinterpret_cast<Stored *>(scratch);
        float *products = reinterpret_cast<float *>(scratch + in);
        for (int64_t group; (group = next++) < groups;) {
            const int64_t first = group * CELLS, last = std::min(first + CELLS, cells);
            for (int64_t i = first; i < last; i++)
                spread_cell<Kind>(image, i / across * OUT, i % across * OUT, spread, int(i - first));
            for (int k = 0; k < PRODUCTS; k++) {
                // rows or columns that come in equal pairs: the third product is of their difference, nothing
                if (image.doubled && (k / SEEN == 2 || k % SEEN == 2)) continue;
                for (int64_t o = 0; o < outputs; o += WIDE)
                    for (int r = 0; r < CELLS; r += ROWS)
                        Kind::multiply(spread + (k * CELLS + r) * channels, panels + (k * outputs + o) * channels,
                                       products + (k * CELLS + r) * outputs + o, channels, outputs);
            }
            for (int64_t i = first; i < last; i++)
                gather_cell(products, int(i - first), bias, finish, made, i / across * OUT, i % across * OUT, rows,
                            columns, outputs);
        }
        std::free(scratch);
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads; i++) others.emplace_back(work);
    work();
    for (auto &other : others) other.join();
    return failed;
}

}  // namespace

extern "C" int winograd_panel() { return WIDE; }

// The image is (rows, columns, channels); what is made is (rows, columns, outputs), or twice the rows and columns.
// finish: 0 written as it is, 1 written where positive and else zero, 2 added to what is there.
// Returns 0, or 1 where there was no memory.
extern "C" int winograd(const float *pixels, int64_t rows, int64_t columns, int64_t channels, int doubled,
                        const float *panels, const float *bias, int finish, float *made, int64_t outputs,
                        int threads) {
    return convolve<Single>({pixels, rows, columns, channels, doubled}, panels, bias, Finish(finish), made, outputs,
                            threads);
}

#ifdef __AVX512BF16__
extern "C" int winograd_half(const float *pixels, int64_t rows, int64_t columns, int64_t channels, int doubled,
                             const uint16_t *panels, const float *bias, int finish, float *made, int64_t outputs,
                             int threads) {
    return convolve<Half>({pixels, rows, columns, channels, doubled}, panels, bias, Finish(finish), made, outputs,
                          threads);
}
#endif
