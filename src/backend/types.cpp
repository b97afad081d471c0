#include "backend/types.h"

namespace rn50 {

const char* name_of(Precision precision) {
    switch (precision) {
        case Precision::fp32: return "fp32";
        case Precision::tf32: return "tf32";
        case Precision::fp16: return "fp16";
        case Precision::bf16: return "bf16";
    }
    return "?";
}

Precision precision_from(const std::string& name) {
    for (const Precision precision : {Precision::fp32, Precision::tf32, Precision::fp16, Precision::bf16})
        if (name == name_of(precision)) return precision;
    throw Error(Exit::usage, cat("unknown precision '", name, "'"), "choose fp32, tf32, fp16 or bf16");
}

DType activation_dtype(Precision precision) {
    switch (precision) {
        case Precision::fp16: return DType::f16;
        case Precision::bf16: return DType::bf16;
        default: return DType::f32;
    }
}

}  // namespace rn50
