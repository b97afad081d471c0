#include "backend/cuda_module.h"
#include "comm/comm.h"

namespace rn50 {

EngineMaker engine_for(Backend& backend) {
    if (backend.info().kind != "cuda") return make_gloo;
    return [&backend](StoreClient& store, const Place& place, std::chrono::milliseconds patience) {
        return require_cuda_module().collectives(backend, store, place, patience);
    };
}

}  // namespace rn50
