// Winograd's convolution F(4 x 4, 3 x 3), channels last, stride 1, mirrored border: in single precision, with products of
// bfloat16 that are summed in single precision (Half), or with products of 8-bit integers that are summed exactly (Byte).
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
#if defined(__AVX512BF16__) || defined(__AVX512VNNI__)
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, ROWS = 14;  // 28 of 32 registers hold sums
#else
constexpr int LANES = 8, ROWS = 6;  // 12 of 16
#endif
constexpr int WIDE = 2 * LANES, CELLS = 2 * ROWS, OUT = 4, SEEN = 6, PRODUCTS = SEEN * SEEN;

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

// Cells and filters are polynomials, evaluated at 0, at these points, at their negatives and at infinity (winograd.py).
struct Points {
    float near, far;
};

inline Points points(int doubled) { return doubled ? Points{1.0f, 2.0f} : Points{0.625f, 1.5f}; }

inline void into(const Vector *x, Vector *o, int step, Points at) {
    const float near = at.near * at.near, far = at.far * at.far;
    const Vector a = x[4 * step] - far * x[2 * step], b = at.near * (x[3 * step] - far * x[step]);
    const Vector c = x[4 * step] - near * x[2 * step], d = at.far * (x[3 * step] - near * x[step]);
    o[0] = c - far * (x[2 * step] - near * x[0]);
    o[1] = a + b;
    o[2] = a - b;
    o[3] = c + d;
    o[4] = c - d;
    o[5] = x[5 * step] - far * x[3 * step] - near * (x[3 * step] - far * x[step]);
}

inline void back(const Vector *m, Vector *o, int step, Points at) {
    const float near = at.near * at.near, far = at.far * at.far;
    const Vector s = m[step] + m[2 * step], d = at.near * (m[step] - m[2 * step]);
    const Vector t = m[3 * step] + m[4 * step], e = at.far * (m[3 * step] - m[4 * step]);
    o[0] = m[0] + s + t;
    o[1] = d + e;
    o[2] = near * s + far * t;
    o[3] = near * d + far * e + m[5 * step];
}

// One cell: (6, 6, channels) of the image -> its 36 transformed values, channel by channel, to keep(product, channel, value).
template <class Keep>
void transform(const Image &image, int64_t row, int64_t column, Keep keep) {
    const int64_t channels = image.channels;
    const Points at = points(image.doubled);
    const float *from[PRODUCTS];
    for (int i = 0; i < SEEN; i++)
        for (int j = 0; j < SEEN; j++)
            from[i * SEEN + j] =
                image.pixels + (row_at(row + i - 1, image.rows, image.doubled) * image.columns +
                                row_at(column + j - 1, image.columns, image.doubled)) * channels;
    for (int64_t c = 0; c < channels; c += LANES) {
        Vector seen[PRODUCTS], half[PRODUCTS], whole[SEEN];
        for (int k = 0; k < PRODUCTS; k++) seen[k] = load(from[k] + c);
        for (int i = 0; i < SEEN; i++) into(seen + i * SEEN, half + i * SEEN, 1, at);
        for (int j = 0; j < SEEN; j++) {
            into(half + j, whole, SEEN, at);
            for (int i = 0; i < SEEN; i++) keep(i * SEEN + j, c, whole[i]);
        }
    }
}

// One cell: products[product][cell][output] -> (4, 4, outputs) of the image that is made, as far as it lies inside.
void gather_cell(const float *products, int cell, Points at, const float *bias, Finish finish, float *made, int64_t row,
                 int64_t column, int64_t rows, int64_t columns, int64_t outputs) {
    for (int64_t o = 0; o < outputs; o += LANES) {
        Vector all[PRODUCTS], half[OUT * SEEN], line[OUT];
        const Vector zero = {}, shift = bias ? load(bias + o) : zero;
        for (int k = 0; k < PRODUCTS; k++) all[k] = load(products + (k * CELLS + cell) * outputs + o);
        for (int i = 0; i < SEEN; i++) back(all + i * SEEN, half + i * OUT, 1, at);
        for (int j = 0; j < OUT; j++) {
            back(half + j, line, OUT, at);
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

// The transformed filters, [product][outputs / WIDE][channels / n][WIDE][n], n channels at a time; of bytes also what
// one count stands for and what is added to a sum, [product][output].
struct Filters {
    const void *panels;
    const float *scales;
    const int32_t *offsets;
};

// What a group of cells is made into: [product][cell][channel]; of bytes also what one count stands for, [product][cell].
template <class Kind>
struct Spread {
    typename Kind::Stored *values;
    float *scales, *line;  // line: room for the transformed values of one cell
};

// How cells are kept, and how ROWS of them are multiplied by one panel of WIDE outputs.
struct Single {
    typedef float Stored;
    static void keep(const Image &image, int64_t row, int64_t column, Spread<Single> to, int cell) {
        transform(image, row, column, [&](int k, int64_t c, Vector value) {
            store(to.values + (k * CELLS + cell) * image.channels + c, value);
        });
    }
    static void multiply(Spread<Single> from, int at, Filters filters, int64_t to, float *products, int64_t channels,
                         int64_t outputs) {
        const float *cells = from.values + at * channels;
        const float *panel = static_cast<const float *>(filters.panels) + to * channels;
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
struct Half {  // two channels at a time
    typedef uint16_t Stored;
    static void keep(const Image &image, int64_t row, int64_t column, Spread<Half> to, int cell) {
        transform(image, row, column, [&](int k, int64_t c, Vector value) {
            _mm256_storeu_si256(reinterpret_cast<__m256i *>(to.values + (k * CELLS + cell) * image.channels + c),
                                (__m256i)_mm512_cvtneps_pbh((__m512)value));
        });
    }
    static void multiply(Spread<Half> from, int at, Filters filters, int64_t to, float *products, int64_t channels,
                         int64_t outputs) {
        const uint16_t *cells = from.values + at * channels;
        const uint16_t *panel = static_cast<const uint16_t *>(filters.panels) + to * channels;
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

#ifdef __AVX512VNNI__
struct Byte {  // four channels at a time; a cell's values of one product share a scale of their own, 128 stands for zero
    typedef uint8_t Stored;
    typedef int32_t Counts __attribute__((vector_size(4 * LANES), aligned(4)));
    static constexpr float MOST = 127.0f;
    static void keep(const Image &image, int64_t row, int64_t column, Spread<Byte> to, int cell) {
        const int64_t channels = image.channels;
        __m512 most[PRODUCTS];
        for (int k = 0; k < PRODUCTS; k++) most[k] = _mm512_setzero_ps();
        transform(image, row, column, [&](int k, int64_t c, Vector value) {
            store(to.line + k * channels + c, value);
            most[k] = _mm512_max_ps(most[k], _mm512_abs_ps((__m512)value));
        });
        for (int k = 0; k < PRODUCTS; k++) {
            const float largest = _mm512_reduce_max_ps(most[k]);
            const Vector zero = {}, steps = zero + (largest > 0.0f ? MOST / largest : 0.0f);
            to.scales[k * CELLS + cell] = largest / MOST;
            uint8_t *bytes = to.values + (k * CELLS + cell) * channels;
            for (int64_t c = 0; c < channels; c += LANES) {
                const __m512i count = _mm512_cvtps_epi32((__m512)(load(to.line + k * channels + c) * steps));
                const __m512i shifted = _mm512_add_epi32(count, _mm512_set1_epi32(128));
                _mm_storeu_si128(reinterpret_cast<__m128i *>(bytes + c), _mm512_cvtepi32_epi8(shifted));
            }
        }
    }
    static void multiply(Spread<Byte> from, int at, Filters filters, int64_t to, float *products, int64_t channels,
                         int64_t outputs) {
        const uint8_t *cells = from.values + at * channels;
        const int8_t *panel = static_cast<const int8_t *>(filters.panels) + to * channels;
        Counts sums[ROWS][2] = {};
        for (int64_t c = 0; c < channels; c += 4) {
            const __m512i left = _mm512_loadu_si512(panel + c * WIDE);
            const __m512i right = _mm512_loadu_si512(panel + c * WIDE + 2 * WIDE);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                int32_t four;
                std::memcpy(&four, cells + r * channels + c, sizeof four);
                const __m512i all = _mm512_set1_epi32(four);
                sums[r][0] = (Counts)_mm512_dpbusd_epi32((__m512i)sums[r][0], all, left);
                sums[r][1] = (Counts)_mm512_dpbusd_epi32((__m512i)sums[r][1], all, right);
            }
        }
        const Vector near = load(filters.scales + to), far = load(filters.scales + to + LANES);
        const Counts first = *reinterpret_cast<const Counts *>(filters.offsets + to);
        const Counts second = *reinterpret_cast<const Counts *>(filters.offsets + to + LANES);
        for (int r = 0; r < ROWS; r++) {
            const float step = from.scales[at + r];
            store(products + r * outputs, __builtin_convertvector(sums[r][0] + first, Vector) * (step * near));
            store(products + r * outputs + LANES, __builtin_convertvector(sums[r][1] + second, Vector) * (step * far));
        }
    }
};
#endif

template <class Kind>
int convolve(Image image, Filters filters, const float *bias, Finish finish, float *made, int64_t outputs,
             int threads) {
    typedef typename Kind::Stored Stored;
    const int64_t rows = image.rows << image.doubled, columns = image.columns << image.doubled;
    const int64_t channels = image.channels, across = (columns + OUT - 1) / OUT;
    const int64_t cells = ((rows + OUT - 1) / OUT) * across, groups = (cells + CELLS - 1) / CELLS;
    std::atomic<int64_t> next{0};
    std::atomic<int> failed{0};
    auto work = [&]() {
        const size_t in = size_t(PRODUCTS) * CELLS * channels * sizeof(Stored);
        const size_t out = size_t(PRODUCTS) * CELLS * outputs * sizeof(float);
        const size_t scales = size_t(PRODUCTS) * CELLS * sizeof(float);
        const size_t line = size_t(PRODUCTS) * channels * sizeof(float);
        char *scratch = static_cast<char *>(std::aligned_alloc(64, in + out + scales + line));
        if (!scratch) {
            failed = 1;
            return;
        }
        std::memset(scratch, 0, in + out + scales + line);
        float *products = reinterpret_cast<float *>(scratch + in);
        const Spread<Kind> spread = {reinterpret_cast<Stored *>(scratch), reinterpret_cast<float *>(scratch + in + out),
                                     reinterpret_cast<float *>(scratch + in + out + scales)};
        for (int64_t group; (group = next++) < groups;) {
            const int64_t first = group * CELLS, last = std::min(first + CELLS, cells);
            for (int64_t i = first; i < last; i++)
                Kind::keep(image, i / across * OUT, i % across * OUT, spread, int(i - first));
            for (int k = 0; k < PRODUCTS; k++) {
                // rows or columns that come in equal pairs: their value at -1 is of their difference, nothing
                if (image.doubled && (k / SEEN == 2 || k % SEEN == 2)) continue;
                for (int64_t o = 0; o < outputs; o += WIDE)
                    for (int r = 0; r < CELLS; r += ROWS)
                        Kind::multiply(spread, k * CELLS + r, filters, k * outputs + o,
                                       products + (k * CELLS + r) * outputs + o, channels, outputs);
            }
            for (int64_t i = first; i < last; i++)
                gather_cell(products, int(i - first), points(image.doubled), bias, finish, made, i / across * OUT,
                            i % across * OUT, rows, columns, outputs);
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
#define TOMOSTAIN_WINOGRAD(name, Kind)                                                                               \
    extern "C" int name(const float *pixels, int64_t rows, int64_t columns, int64_t channels, int doubled,           \
                        const void *panels, const float *scales, const int32_t *offsets, const float *bias,          \
                        int finish, float *made, int64_t outputs, int threads) {                                     \
        return convolve<Kind>({pixels, rows, columns, channels, doubled}, {panels, scales, offsets}, bias,           \
                              Finish(finish), made, outputs, threads);                                               \
    }

TOMOSTAIN_WINOGRAD(winograd_single, Single)
#ifdef __AVX512BF16__
TOMOSTAIN_WINOGRAD(winograd_half, Half)
#endif
#ifdef __AVX512VNNI__
TOMOSTAIN_WINOGRAD(winograd_byte, Byte)
#endif
