// pack.json: what of a packed set is finished. For pack.cpp.
#pragma once

#include <string>
#include <vector>

#include "pipeline/pack.h"

namespace rn50 {

struct PackManifest {
    struct Bad {
        std::string name, reason;
    };
    struct Split {
        std::string name;
        int64_t pictures = 0;      ///< of the source
        uint32_t fingerprint = 0;  ///< of their labels and names
        int64_t next = 0;          ///< the first one that is not in a finished part
        bool complete = false;
        std::vector<WrittenPart> parts;
        std::vector<Bad> bad;  ///< those before `next`
    };
    std::string format, encode;
    int64_t longest = 0, shortest = 0, quality = 0, part_bytes = 0;
    bool restart_markers = false;
    int bits = 0;
    std::vector<Split> splits;

    bool complete() const;
    void write(const std::string& folder) const;
    /// False: there is none. Throws Error(Exit::data) when it is damaged.
    static bool read(const std::string& folder, PackManifest& manifest);
    /// Throws Error(Exit::usage) that names what differs between this, found in `folder`, and what is asked.
    void require_same(const PackManifest& asked, const std::string& folder) const;
};

}  // namespace rn50
