// Which plans were found fastest, kept on disk between runs, so that only the first start on a machine measures.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "conv_graph.h"

namespace rn50::cuda {

/// A choice, and how long it took when it was measured.
struct KeptPlan {
    EngineChoice choice;
    float milliseconds = 0;  ///< of one run; 0: never measured
};

/// One JSON file for each kind of GPU, driver and cuDNN: plans-NVIDIA_H200-sm90-driver580.65.06-cudnn9.13.0.json.
/// Nothing here throws: a file that cannot be read or written costs time at the next start, and is said once.
class PlanCache {
  public:
    /// An empty folder keeps nothing on disk. `machine` names everything that the choices depend on.
    PlanCache(const std::string& folder, const std::string& machine);

    std::optional<KeptPlan> find(const std::string& key) const;
    void store(const std::string& key, const KeptPlan& kept);
    /// Writes what was stored since the last time, beside what other processes have written meanwhile.
    void flush();
    const std::string& path() const { return path_; }

    /// RN50_PLAN_CACHE, or rn50 in XDG_CACHE_HOME or in ~/.cache; empty (and said once) where there is none of them.
    static std::string default_folder();

  private:
    using Plans = std::map<std::string, KeptPlan>;
    Plans read() const;

    std::string path_, machine_;
    Plans plans_, fresh_;
};

}  // namespace rn50::cuda
