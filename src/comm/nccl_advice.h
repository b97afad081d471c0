// What to do about NCCL's failures, known by the words in which NCCL tells them.
#pragma once

#include <string>

namespace rn50 {

/// The remedy that fits `said`: the text of a status, NCCL's last error, or a line of its log. Never empty.
std::string nccl_remedy(const std::string& said);

}  // namespace rn50
