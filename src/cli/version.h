// The program's version, as --version and run directories tell it.
#pragma once

namespace rn50 {

inline constexpr const char* version = "0.1.0";

}  // namespace rn50
