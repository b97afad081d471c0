// Compiled once for each of v2, v3, v4 (RN50_ISA), each time into a namespace of its own. Only plain loops and the
// compiler's vector types here: an inline function of the standard library compiled for AVX-512 could be the copy that
// the linker keeps for everybody.
#include "backend/cpu/kernels.h"

#include <stdint.h>
#include <string.h>

#include "base/half.h"

namespace rn50::cpu {
namespace RN50_ISA {

namespace {

constexpr int lanes = 16;  // one AVX-512 register, two of AVX2, four of SSE
typedef float Vec __attribute__((vector_size(lanes * 4)));
typedef int32_t Mask __attribute__((vector_size(lanes * 4)));
typedef uint32_t Bits __attribute__((vector_size(lanes * 4)));
typedef uint16_t Half __attribute__((vector_size(lanes * 2)));
typedef uint8_t Bytes __attribute__((vector_size(lanes)));

struct Bf16 {
    uint16_t bits;
};

inline Vec splat(float x) { return Vec{} + x; }
inline Vec widen(Half h) { return (Vec)(__builtin_convertvector(h, Bits) << 16); }
/// Round to nearest even; NaN stays NaN.
inline Half narrow(Vec v) {
    const Bits u = (Bits)v;
    const Bits rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
    const Bits nan = (Bits)(v != v);
    return __builtin_convertvector((nan & 0x7FC0u) | (~nan & rounded), Half);
}
inline Vec select(Mask mask, Vec a, Vec b) { return (Vec)(((Mask)a & mask) | ((Mask)b & ~mask)); }
/// max(v, 0) as PyTorch's ReLU: NaN stays NaN.
inline Vec clip(Vec v) { return select(v <= 0.0f, Vec{}, v); }

// load and store of n <= lanes elements; n is a constant at the full-width call sites.
inline Vec load(const float* p, int n) {
    Vec v{};
    memcpy(&v, p, n * sizeof(float));
    return v;
}
inline Vec load(const Bf16* p, int n) {
    Half h{};
    memcpy(&h, p, n * sizeof(Bf16));
    return widen(h);
}
inline Vec load(const uint8_t* p, int n) {
    Bytes b{};
    memcpy(&b, p, n);
    return __builtin_convertvector(b, Vec);
}
inline void store(float* p, Vec v, int n) { memcpy(p, &v, n * sizeof(float)); }
inline void store(Bf16* p, Vec v, int n) {
    const Half h = narrow(v);
    memcpy(p, &h, n * sizeof(Bf16));
}

/// Calls body(channel, n) for each vector of channels; n is the compile-time width except in the tail.
template <class Body>
inline void for_channels(int64_t channels, const Body& body) {
    int64_t c = 0;
    for (; c + lanes <= channels; c += lanes)
        body(c, lanes);
    if (c < channels) body(c, static_cast<int>(channels - c));
}

struct Affine {
    const float* scale;
    const float* shift;
    inline Vec operator()(Vec x, int64_t c, int n) const {
        if (!scale) return x;
        const Vec product = x * load(scale + c, n);
        return product + load(shift + c, n);
    }
};

// --- apply -------------------------------------------------------------------------------------------------------

template <class S, class D>
void apply_rows(const S* src, D* dst, int64_t rows, int64_t channels, Affine affine, bool relu) {
    for (int64_t r = 0; r < rows; ++r, src += channels, dst += channels)
        for_channels(channels, [&](int64_t c, int n) {
            const Vec v = affine(load(src + c, n), c, n);
            store(dst + c, relu ? clip(v) : v, n);
        });
}

/// Pictures have 3 channels: their rows are handled as one long row whose scale repeats every 48 elements.
template <class S, class D>
void apply_narrow(const S* src, D* dst, int64_t rows, int64_t channels, Affine affine, bool relu) {
    constexpr int period = 48;
    float scale[period], shift[period];
    if (affine.scale)
        for (int i = 0; i < period; ++i) {
            scale[i] = affine.scale[i % channels];
            shift[i] = affine.shift[i % channels];
        }
    const Affine repeated{affine.scale ? scale : nullptr, shift};
    const int64_t total = rows * channels;
    for (int64_t i = 0; i < total; i += period) {
        const int64_t left = total - i < period ? total - i : period;
        apply_rows(src + i, dst + i, 1, left, repeated, relu);
    }
}

template <class S, class D>
void apply_typed(const void* src, void* dst, int64_t rows, int64_t channels, Affine affine, bool relu) {
    const S* s = static_cast<const S*>(src);
    D* d = static_cast<D*>(dst);
    if (channels < lanes && 48 % channels == 0)
        apply_narrow(s, d, rows, channels, affine, relu);
    else
        apply_rows(s, d, rows, channels, affine, relu);
}

template <class S>
void apply_from(const void* src, void* dst, DType to, int64_t rows, int64_t channels, Affine affine, bool relu) {
    if (to == DType::bf16)
        apply_typed<S, Bf16>(src, dst, rows, channels, affine, relu);
    else
        apply_typed<S, float>(src, dst, rows, channels, affine, relu);
}

void apply(const void* src, DType from, void* dst, DType to, int64_t rows, int64_t channels, const float* scale,
           const float* shift, bool relu) {
    const Affine affine{scale, shift};
    if (from == DType::u8)
        apply_from<uint8_t>(src, dst, to, rows, channels, affine, relu);
    else if (from == DType::bf16)
        apply_from<Bf16>(src, dst, to, rows, channels, affine, relu);
    else
        apply_from<float>(src, dst, to, rows, channels, affine, relu);
}

// --- reductions: a block of channels stays in registers while the rows go by -------------------------------------

constexpr int block = 4;  // vectors of channels at once: 256 bytes of a row

/// Calls body.template run<vectors>(channel, n) for blocks of `block` vectors, then single vectors, then the tail.
template <class Body>
inline void for_blocks(int64_t channels, const Body& body) {
    int64_t c = 0;
    for (; c + block * lanes <= channels; c += block * lanes)
        body.template run<block>(c, lanes);
    for (; c + lanes <= channels; c += lanes)
        body.template run<1>(c, lanes);
    if (c < channels) body.template run<1>(c, static_cast<int>(channels - c));
}

template <class T>
struct Stats {
    const T* x;
    int64_t rows, channels;
    float* out;
    template <int vectors>
    inline void run(int64_t c, int n) const {
        // Shifted by the mean of the first rows, in runs of 32 rows: neither the sums nor their difference lose digits.
        const int64_t guess_rows = rows < 8 ? rows : 8;
        Vec pivot[vectors], sum[vectors], square[vectors];
        for (int v = 0; v < vectors; ++v) {
            pivot[v] = sum[v] = square[v] = Vec{};
            for (int64_t r = 0; r < guess_rows; ++r)
                pivot[v] += load(x + r * channels + c + v * lanes, n);
            pivot[v] *= 1.0f / static_cast<float>(guess_rows);
        }
        for (int64_t begin = 0; begin < rows; begin += 32) {
            const int64_t end = begin + 32 < rows ? begin + 32 : rows;
            Vec run_sum[vectors] = {}, run_square[vectors] = {};
            for (int64_t r = begin; r < end; ++r)
                for (int v = 0; v < vectors; ++v) {
                    const Vec d = load(x + r * channels + c + v * lanes, n) - pivot[v];
                    run_sum[v] += d;
                    run_square[v] += d * d;
                }
            for (int v = 0; v < vectors; ++v) {
                sum[v] += run_sum[v];
                square[v] += run_square[v];
            }
        }
        const float inverse = 1.0f / static_cast<float>(rows);
        for (int v = 0; v < vectors; ++v) {
            const Vec average = sum[v] * inverse;
            store(out + c + v * lanes, pivot[v], n);
            store(out + channels + c + v * lanes, average, n);
            store(out + 2 * channels + c + v * lanes, clip(square[v] - sum[v] * average), n);  // rounding must not make it negative
        }
    }
};

void stats(const void* x, DType dtype, int64_t rows, int64_t channels, float* out) {
    if (dtype == DType::bf16)
        for_blocks(channels, Stats<Bf16>{static_cast<const Bf16*>(x), rows, channels, out});
    else
        for_blocks(channels, Stats<float>{static_cast<const float*>(x), rows, channels, out});
}

template <class T, int norm_count>
struct DiffSrcBody {
    const DiffTile& t;
    template <int vectors>
    inline void run(int64_t c, int n) const {
        Vec sum[2][vectors] = {}, centered[2][vectors] = {}, mean[2][vectors] = {};
        for (int k = 0; k < norm_count; ++k)
            for (int v = 0; v < vectors; ++v)
                mean[k][v] = load(t.norms[k].mean + c + v * lanes, n);
        const T* g = static_cast<const T*>(t.g) + c;
        T* diff = static_cast<T*>(t.diff) + c;
        const T* at = t.at ? static_cast<const T*>(t.at) + c : nullptr;
        const T* raw[2] = {};
        for (int k = 0; k < norm_count; ++k)
            raw[k] = static_cast<const T*>(t.norms[k].raw) + c;
        const Affine affine{t.scale, t.shift};
        for (int64_t r = 0; r < t.rows; ++r) {
            for (int v = 0; v < vectors; ++v) {
                const int64_t i = r * t.channels + v * lanes;
                Vec dz = load(g + r * t.g_stride + v * lanes, n);
                if (t.add) dz += load(diff + i, n);
                if (at) dz = select(affine(load(at + i, n), c + v * lanes, n) > 0.0f, dz, Vec{});
                store(diff + i, dz, n);
                // The sums are those of dz as it will be read again.
                if (sizeof(T) == sizeof(Bf16)) dz = widen(narrow(dz));
                for (int k = 0; k < norm_count; ++k) {
                    sum[k][v] += dz;
                    centered[k][v] += dz * (load(raw[k] + i, n) - mean[k][v]);
                }
            }
        }
        for (int k = 0; k < norm_count; ++k)
            for (int v = 0; v < vectors; ++v) {
                store(t.norms[k].dz + c + v * lanes, sum[k][v], n);
                store(t.norms[k].dz_centered + c + v * lanes, centered[k][v], n);
            }
    }
};

template <class T>
void diff_src_typed(const DiffTile& tile) {
    if (tile.norm_count == 0) for_blocks(tile.channels, DiffSrcBody<T, 0>{tile});
    if (tile.norm_count == 1) for_blocks(tile.channels, DiffSrcBody<T, 1>{tile});
    if (tile.norm_count == 2) for_blocks(tile.channels, DiffSrcBody<T, 2>{tile});
}

void diff_src(const DiffTile& tile, DType dtype) {
    if (dtype == DType::bf16)
        diff_src_typed<Bf16>(tile);
    else
        diff_src_typed<float>(tile);
}

// --- element by element ------------------------------------------------------------------------------------------

template <class T>
void norm_gradient_typed(const T* dz, const T* raw, T* dst, int64_t rows, int64_t channels, const float* factor,
                         const float* mean_dz, const float* slope, const float* mean) {
    for (int64_t r = 0; r < rows; ++r, dz += channels, raw += channels, dst += channels)
        for_channels(channels, [&](int64_t c, int n) {
            const Vec centered = (load(raw + c, n) - load(mean + c, n)) * load(slope + c, n);
            store(dst + c, load(factor + c, n) * ((load(dz + c, n) - load(mean_dz + c, n)) - centered), n);
        });
}

void norm_gradient(const void* dz, const void* raw, void* dst, DType dtype, int64_t rows, int64_t channels,
                   const float* factor, const float* mean_dz, const float* slope, const float* mean) {
    if (dtype == DType::bf16)
        norm_gradient_typed(static_cast<const Bf16*>(dz), static_cast<const Bf16*>(raw), static_cast<Bf16*>(dst), rows,
                            channels, factor, mean_dz, slope, mean);
    else
        norm_gradient_typed(static_cast<const float*>(dz), static_cast<const float*>(raw), static_cast<float*>(dst),
                            rows, channels, factor, mean_dz, slope, mean);
}

template <class T>
void join_typed(const T* a, Affine of_a, const T* b, Affine of_b, T* dst, int64_t rows, int64_t channels) {
    for (int64_t r = 0; r < rows; ++r, a += channels, b += channels, dst += channels)
        for_channels(channels, [&](int64_t c, int n) {
            store(dst + c, clip(of_a(load(a + c, n), c, n) + of_b(load(b + c, n), c, n)), n);
        });
}

void join(const void* a, const float* scale_a, const float* shift_a, const void* b, const float* scale_b,
          const float* shift_b, void* dst, DType dtype, int64_t rows, int64_t channels) {
    const Affine of_a{scale_a, shift_a}, of_b{scale_b, shift_b};
    if (dtype == DType::bf16)
        join_typed(static_cast<const Bf16*>(a), of_a, static_cast<const Bf16*>(b), of_b, static_cast<Bf16*>(dst), rows,
                   channels);
    else
        join_typed(static_cast<const float*>(a), of_a, static_cast<const float*>(b), of_b, static_cast<float*>(dst),
                   rows, channels);
}

// --- pooling -----------------------------------------------------------------------------------------------------

/// The window of one output pixel, inside the picture: [y0, y1) x [x0, x1).
struct Window {
    int64_t y0, y1, x0, x1;
    Window(int64_t oy, int64_t ox, int64_t height, int64_t width)
        : y0(oy ? 2 * oy - 1 : 0),
          y1(2 * oy + 2 < height ? 2 * oy + 2 : height),
          x0(ox ? 2 * ox - 1 : 0),
          x1(2 * ox + 2 < width ? 2 * ox + 2 : width) {}
};

/// Calls visit(value, y, x) for each pixel of the window, rows first.
template <class T, class Visit>
inline void for_window(const T* src, int64_t width, int64_t channels, const Window& w, Affine affine, bool relu,
                       int64_t c, int n, const Visit& visit) {
    for (int64_t y = w.y0; y < w.y1; ++y)
        for (int64_t x = w.x0; x < w.x1; ++x) {
            const Vec v = affine(load(src + (y * width + x) * channels + c, n), c, n);
            visit(relu ? clip(v) : v, y, x);
        }
}

template <class T>
void max_pool_row_typed(const T* src, int64_t height, int64_t width, int64_t channels, Affine affine, bool relu,
                        int64_t oy, T* dst) {
    for (int64_t ox = 0; ox < (width + 1) / 2; ++ox, dst += channels) {
        const Window w(oy, ox, height, width);
        for_channels(channels, [&](int64_t c, int n) {
            Vec best = splat(-__builtin_inff());
            for_window(src, width, channels, w, affine, relu, c, n, [&](Vec v, int64_t, int64_t) {
                best = select((v > best) | (v != v), v, best);
            });
            store(dst + c, best, n);
        });
    }
}

void max_pool_row(const void* src, DType dtype, int64_t height, int64_t width, int64_t channels, const float* scale,
                  const float* shift, bool relu, int64_t out_row, void* dst) {
    const Affine affine{scale, shift};
    if (dtype == DType::bf16)
        max_pool_row_typed(static_cast<const Bf16*>(src), height, width, channels, affine, relu, out_row,
                           static_cast<Bf16*>(dst));
    else
        max_pool_row_typed(static_cast<const float*>(src), height, width, channels, affine, relu, out_row,
                           static_cast<float*>(dst));
}

template <class T>
void max_pool_scatter_typed(const T* src, int64_t height, int64_t width, int64_t channels, Affine affine, bool relu,
                            const T* diff_dst, float* diff) {
    for (int64_t oy = 0; oy < (height + 1) / 2; ++oy)
        for (int64_t ox = 0; ox < (width + 1) / 2; ++ox, diff_dst += channels) {
            const Window w(oy, ox, height, width);
            for_channels(channels, [&](int64_t c, int n) {
                Vec best = splat(-__builtin_inff());
                Mask place{};  // the pixel of the first maximum, counted through the window
                int32_t k = 0;
                for_window(src, width, channels, w, affine, relu, c, n, [&](Vec v, int64_t, int64_t) {
                    const Mask better = (v > best) | (v != v);
                    best = select(better, v, best);
                    place = (better & k) | (~better & place);
                    ++k;
                });
                const Vec g = load(diff_dst + c, n);
                k = 0;
                for (int64_t y = w.y0; y < w.y1; ++y)
                    for (int64_t x = w.x0; x < w.x1; ++x, ++k) {
                        float* d = diff + (y * width + x) * channels + c;
                        store(d, load(d, n) + select(place == k, g, Vec{}), n);
                    }
            });
        }
}

void max_pool_scatter(const void* src, DType dtype, int64_t height, int64_t width, int64_t channels,
                      const float* scale, const float* shift, bool relu, const void* diff_dst, float* diff) {
    const Affine affine{scale, shift};
    if (dtype == DType::bf16)
        max_pool_scatter_typed(static_cast<const Bf16*>(src), height, width, channels, affine, relu,
                               static_cast<const Bf16*>(diff_dst), diff);
    else
        max_pool_scatter_typed(static_cast<const float*>(src), height, width, channels, affine, relu,
                               static_cast<const float*>(diff_dst), diff);
}

template <class T>
void mean_rows_typed(const T* src, int64_t rows, int64_t channels, T* dst) {
    const float inverse = 1.0f / static_cast<float>(rows);
    for_channels(channels, [&](int64_t c, int n) {
        Vec sum{};
        for (int64_t r = 0; r < rows; ++r)
            sum += load(src + r * channels + c, n);
        store(dst + c, sum * inverse, n);
    });
}

void mean_rows(const void* src, DType dtype, int64_t rows, int64_t channels, void* dst) {
    if (dtype == DType::bf16)
        mean_rows_typed(static_cast<const Bf16*>(src), rows, channels, static_cast<Bf16*>(dst));
    else
        mean_rows_typed(static_cast<const float*>(src), rows, channels, static_cast<float*>(dst));
}

// --- whole parameter buffers -------------------------------------------------------------------------------------

template <class S, class D, D (*convert_one)(S)>
void convert_all(const void* src, void* dst, int64_t n) {
    const S* const from = static_cast<const S*>(src);
    D* const to = static_cast<D*>(dst);
    for (int64_t i = 0; i < n; ++i)
        to[i] = convert_one(from[i]);
}

void convert(const void* src, DType src_dtype, void* dst, DType dst_dtype, int64_t n) {
    if (dst_dtype == DType::f16)
        convert_all<float, uint16_t, f32_to_f16>(src, dst, n);
    else if (dst_dtype == DType::bf16)
        convert_all<float, uint16_t, f32_to_bf16>(src, dst, n);
    else if (src_dtype == DType::f16)
        convert_all<uint16_t, float, f16_to_f32>(src, dst, n);
    else
        convert_all<uint16_t, float, bf16_to_f32>(src, dst, n);
}

void add(const float* src, float* dst, int64_t n) {
    for_channels(n, [&](int64_t i, int k) { store(dst + i, load(dst + i, k) + load(src + i, k), k); });
}

double sum_squares(const float* x, int64_t n) {
    typedef double Wide __attribute__((vector_size(lanes * 8)));
    Wide sum{};
    for_channels(n, [&](int64_t i, int k) {
        const Wide v = __builtin_convertvector(load(x + i, k), Wide);
        sum += v * v;
    });
    double total = 0;
    for (int i = 0; i < lanes; ++i)
        total += sum[i];
    return total;
}

inline Vec square_root(Vec v) {
    Vec root;
    for (int i = 0; i < lanes; ++i)
        root[i] = __builtin_sqrtf(v[i]);
    return root;
}

void adamw(const AdamStep& s, float* p, const float* g, float* m, float* v, int64_t n) {
    const float step_size = s.lr / s.correction1;
    for_channels(n, [&](int64_t i, int k) {
        const Vec gradient = load(g + i, k) * s.multiplier;
        const Vec decayed = load(p + i, k) * (1.0f - s.decay);
        const Vec m0 = load(m + i, k);
        const Vec first = m0 + (gradient - m0) * (1.0f - s.beta1);  // torch's lerp
        const Vec second = load(v + i, k) * s.beta2 + gradient * gradient * (1.0f - s.beta2);
        const Vec denominator = square_root(second) / s.correction2_sqrt + s.eps;
        store(m + i, first, k);
        store(v + i, second, k);
        store(p + i, decayed - first / denominator * step_size, k);
    });
}

void sgd(const SgdStep& s, float* p, const float* g, float* buffer, int64_t n) {
    for_channels(n, [&](int64_t i, int k) {
        const Vec weight = load(p + i, k);
        const Vec gradient = load(g + i, k) * s.multiplier + weight * s.weight_decay;
        const Vec momentum = s.first ? gradient : load(buffer + i, k) * s.momentum + gradient;
        store(buffer + i, momentum, k);
        store(p + i, weight - (s.nesterov ? gradient + momentum * s.momentum : momentum) * s.lr, k);
    });
}

#define RN50_TEXT_(x) #x
#define RN50_TEXT(x) RN50_TEXT_(x)

}  // namespace

extern const Kernels table;
const Kernels table = {RN50_TEXT(RN50_ISA), apply,       stats, norm_gradient, diff_src, join, max_pool_row,
                       max_pool_scatter,    mean_rows,   convert, add,   sum_squares,   adamw,    sgd};

}  // namespace RN50_ISA
}  // namespace rn50::cpu
