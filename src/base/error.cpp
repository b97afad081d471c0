#include "base/error.h"

#include <cerrno>
#include <cstring>

namespace rn50 {

std::string with_errno(const std::string& what) {
    return what + ": " + std::strerror(errno);
}

void contract_broken(const char* expression, const char* file, int line, const std::string& message) {
    throw Error(Exit::internal, cat(message, " (", expression, " at ", file, ":", line, ")"),
                "this is a defect of rn50; please report it with the command line and the lines above");
}

}  // namespace rn50
