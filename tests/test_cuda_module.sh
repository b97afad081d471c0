#!/bin/bash
# The GPU module as the program finds it: not there, no module, damaged, of another version, in need of a library that is
# not there, without a GPU; each told by its own name, to --device cuda as an error, to auto as one line.
#   tests/test_cuda_module.sh PATH/rn50
source "$(dirname "$0")/script.sh" "$1"
source=$tests/../src
cxx=${CXX:-g++}
unset CUDA_VISIBLE_DEVICES

# take DEVICE MODULE: a command that takes a backend, says which, and ends for want of pictures (3).
take() {
    RN50_CUDA_MODULE=$2 "$program" bench loader nowhere --device "$1" >out 2>err
    code=$?
}
# refused NAME MODULE REASON REMEDY: cuda is an error in these words, auto says them once and computes, doctor shows them.
refused() {
    local name=$1 module=$2 reason=$3 remedy=$4
    take cuda "$module"
    check "$name: --device cuda is an error" eval '[ $code = 4 ] && grep -F "error: " err | grep -qF "$reason" && says "$remedy" && [ ! -s out ]'
    take auto "$module"
    check "$name: auto says so once and computes on the CPU" eval \
        '[ $code = 3 ] && [ "$(grep -cF "$reason" err)" = 1 ] && says "warning: the CPU computes: " && says "oneDNN"'
    RN50_CUDA_MODULE=$module "$program" doctor >out 2>err
    code=$?
    check "$name: doctor says the same" eval '[ $code = 0 ] && prints "$reason" && prints "→ $remedy" && prints "ready to train"'
}

# Without any module, and without a GPU, nobody needs to be told.
take cuda ''
check "no module: --device cuda is an error" eval '[ $code = 4 ] && says "no rn50_cuda.so beside the program" && says "make deps"'
if ! grep -qs 0x10de /sys/bus/pci/devices/*/vendor; then
    take auto ''
    check "no module and no GPU: auto is silent" eval '[ $code = 3 ] && says "device: " && ! says warning'
fi
refused "a module that was named and is not there" "$work/nowhere.so" "RN50_CUDA_MODULE points to $work/nowhere.so" \
    "unset RN50_CUDA_MODULE"

if ! command -v "${cxx%% *}" >/dev/null; then
    echo "ok (the rest needs a compiler)"
    exit $failed
fi
library() { # FILE [OPTION...]: makes a shared library of the code on stdin
    local file=$1
    shift
    $cxx -std=c++17 -x c++ -shared -fPIC -I"$source" - -x none "$@" -o "$file"
}
text='a text'
echo "$text" >text.so
echo '// nothing' | library empty.so

# A machine without a driver: told before the module is looked into, except by doctor.
if ! ldconfig -p 2>/dev/null | grep libcuda.so.1 >/dev/null && [ ! -e /dev/nvidiactl ]; then
    take cuda "$work/text.so"
    check "no driver: --device cuda is an error" eval '[ $code = 4 ] && grep -qE "no NVIDIA GPU|without a driver" err'
    take auto "$work/text.so"
    check "no driver: auto says so once" eval '[ $code = 3 ] && [ "$(grep -c "warning" err)" = 1 ]'
fi
CUDA_VISIBLE_DEVICES='' refused "hidden GPUs" "$work/empty.so" "CUDA_VISIBLE_DEVICES is set to nothing" \
    "unset CUDA_VISIBLE_DEVICES"

# From here on, something stands in for a driver.
mkdir driver && echo 'extern "C" int nothing() { return 0; }' | library driver/libcuda.so.1
export LD_LIBRARY_PATH=$work/driver${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

refused "a text file" "$work/text.so" "text.so is damaged or no module at all" "build program and module again"
head -c 5000 empty.so >short.so
refused "half a file" "$work/short.so" "short.so is damaged or no module at all" "build program and module again"
refused "another library" "$work/empty.so" "empty.so is no GPU module of rn50" "build program and module again"

cat >version.cpp <<'CODE'
struct Module { int version; void* info; void* make; };
extern "C" const Module* rn50_cuda_module() {
    static const Module module{4711, nullptr, nullptr};
    return &module;
}
CODE
library version.so <version.cpp
refused "another version" "$work/version.so" "version.so is of version 4711" "build program and module again"

for name in libcudnn.so.9 libcublasLt.so.13 libfoo.so.2; do
    echo 'extern "C" int gone() { return 0; }' | library $name -Wl,-soname,$name
    { echo 'extern "C" int gone();' && echo 'int used = gone();' && cat version.cpp; } | library needs.so ./$name
    rm $name
    remedy='install the package that holds it'
    case $name in *cudnn*) remedy="install NVIDIA's cuDNN 9" ;; *cublas*) remedy="install the libraries of NVIDIA's CUDA toolkit 13" ;; esac
    if ldconfig -p 2>/dev/null | grep "$name" >/dev/null; then continue; fi
    refused "without $name" "$work/needs.so" "needs.so needs $name, which is not found" "$remedy"
done

# Another major version of what is needed is no help, and is named beside the one remedy.
needed=9 other=8
if ldconfig -p 2>/dev/null | grep "libcudnn.so.9" >/dev/null; then needed=8 other=9; fi
for major in 8 9; do
    echo 'extern "C" int gone() { return 0; }' | library driver/libcudnn.so.$major -Wl,-soname,libcudnn.so.$major
done
{ echo 'extern "C" int gone();' && echo 'int used = gone();' && cat version.cpp; } | library needs.so driver/libcudnn.so.$needed
rm driver/libcudnn.so.$needed
if ! ldconfig -p 2>/dev/null | grep "libcudnn.so.$needed" >/dev/null; then
    refused "with cuDNN $other where $needed is needed" "$work/needs.so" \
        "needs.so needs libcudnn.so.$needed, which is not found (libcudnn.so.$other is, another major version, which does not do)" \
        "install NVIDIA's cuDNN $needed"
    check "and of cuDNN nothing else is said" eval '[ "$(grep -ci cudnn out)" = 2 ] && ! prints "✓ cuDNN"'
fi
rm -f driver/libcudnn.so.*

# A driver too old for the module is told first: what the module needs beside it would be installed in vain.
mv driver/libcuda.so.1 nothing.so
library driver/libcuda.so.1 <<'CODE'
#include <cstring>
extern "C" {
int cuDriverGetVersion(int* version) { *version = 12020; return 0; }
int cuInit(unsigned) { return 0; }
int cuDeviceGetCount(int* count) { *count = 1; return 0; }
int cuDeviceGet(int* device, int) { *device = 0; return 0; }
int cuDeviceGetName(char* name, int, int) { std::strcpy(name, "Imaginary 4090"); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = 24000000000; return 0; }
int cuDeviceGetAttribute(int* value, int what, int) { *value = what == 75 ? 8 : 9; return 0; }
}
CODE
for toolkit in 13 12; do
    echo 'extern "C" int gone() { return 0; }' | library libcublasLt.so.$toolkit -Wl,-soname,libcublasLt.so.$toolkit
    { echo 'extern "C" int gone();' && echo 'int used = gone();' && cat version.cpp; } | library cuda$toolkit.so ./libcublasLt.so.$toolkit
    mv libcublasLt.so.$toolkit driver/
done
for installed in yes no; do
    [ $installed = yes ] || rm driver/libcublasLt.so.*
    refused "a driver too old for the module, its libraries there: $installed" "$work/cuda13.so" \
        "too old: it runs CUDA up to 12.2, rn50_cuda.so is made with CUDA 13" "install driver 580 or newer"
    [ $installed = yes ] && continue
    check "and doctor says nothing else of it" eval \
        'prints "! GPU driver" "✓ GPU 0        Imaginary 4090" && ! prints "✓ GPU driver" && [ "$(grep -c "→ install" out)" = 1 ] && ! prints "libcublasLt"'
    if ! ldconfig -p 2>/dev/null | grep "libcublasLt.so.12" >/dev/null; then
        refused "a driver that is new enough" "$work/cuda12.so" "cuda12.so needs libcublasLt.so.12, which is not found" \
            "install the libraries of NVIDIA's CUDA toolkit 12"
        check "and doctor sees no fault in it" prints "✓ GPU driver" "up to CUDA 12.2"
    fi
done
mv nothing.so driver/libcuda.so.1

{ echo 'namespace rn50 { int of_yesterday(); }' && echo 'int used = rn50::of_yesterday();' && cat version.cpp; } |
    library yesterday.so
refused "a module that asks the program for what it has not" "$work/yesterday.so" "does not fit this program" \
    "build program and module again"

# A whole module, without CUDA: its faults are the user's to see, and what it shares with the program works.
cat >whole.cpp <<'CODE'
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "backend/cuda_module.h"
#include "base/log.h"
#include "comm/comm.h"
#define final  // a GPU that is a CPU in all but its name
#include "backend/cpu/cpu_backend.h"
#undef final

namespace {

const bool works = std::getenv("IMAGINARY_GPU") != nullptr;

// The step in which it is lost, of this process, counted from 1; 0: never.
const int lost_in = std::getenv("IMAGINARY_LOSS") == nullptr ? 0 : std::atoi(std::getenv("IMAGINARY_LOSS"));
// Every step's gradients overflow but those of each so-manieth step.
const char* const good_every = std::getenv("IMAGINARY_GOOD_STEP");
// Each step takes so many milliseconds more.
const int pause_ms = std::getenv("IMAGINARY_PAUSE") == nullptr ? 0 : std::atoi(std::getenv("IMAGINARY_PAUSE"));

class ImaginaryGpu : public rn50::cpu::CpuBackend {
  public:
    ImaginaryGpu() : CpuBackend(1) {}
    rn50::DeviceInfo info() const override {
        rn50::DeviceInfo info = CpuBackend::info();
        info.kind = "cuda";
        info.name = "Imaginary 3090";
        info.total_memory = info.free_memory = 24000000000;
        info.fp16 = false;
        return info;
    }
    bool asynchronous() const override { return true; }  // so results are read late, as of a GPU
    rn50::MemoryTaken memory_taken() const override {
        const char* const libraries = std::getenv("IMAGINARY_LIBRARIES_MB");
        if (libraries == nullptr) return {};
        return {{{"exchange of the ranks", 4000000}}, {"CUDA context and libraries", std::atoll(libraries) * 1000000}};
    }

  protected:
    void do_check_gradients(const rn50::Tensor& gradients, float clip_norm, const rn50::ScalePolicy& policy,
                            const rn50::Tensor& divisor, const rn50::Tensor& state,
                            const rn50::Tensor& workspace) override {
        ++steps_;
        std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
        if (good_every != nullptr && steps_ % std::atoi(good_every) != 0) gradients.as<float>()[0] = INFINITY;
        CpuBackend::do_check_gradients(gradients, clip_norm, policy, divisor, state, workspace);
    }
    void do_optimize(const rn50::OptimizerDesc& desc, const rn50::Tensor& parameters, const rn50::Tensor& gradients,
                     const rn50::Tensor& moment1, const rn50::Tensor& moment2, const rn50::Tensor& state,
                     const rn50::Tensor& table) override {
        if (steps_ == lost_in)
            throw rn50::Error(rn50::Exit::device, "wait for the GPU: an imaginary fault (cudaErrorContained)",
                              "the GPU was lost: continue with --resume auto");
        CpuBackend::do_optimize(desc, parameters, gradients, moment1, moment2, state, table);
    }

  private:
    int steps_ = 0;
};

int count() {
    const char* const gpus = std::getenv("IMAGINARY_GPU");
    return gpus == nullptr ? 0 : std::atoi(gpus);
}

rn50::CudaModuleInfo info() {
    rn50::CudaModuleInfo info;
    info.toolkit = info.runtime = "13.0";
    info.driver_limit = "12.2";
    info.cudnn = info.cudnn_built = "9.1.0";
    info.cublaslt = "13.0.2";
    const char* const architectures = std::getenv("IMAGINARY_CODE");
    info.architectures = architectures == nullptr ? "sm_89" : architectures;
    info.nccl_built = "2.16.5";
    info.nvjpeg = "12.2.5";
    if (std::getenv("IMAGINARY_NCCL") != nullptr) info.nccl = "2.18.3";
    do
        info.devices.push_back({"Imaginary 3090", 8, 6, 24000000000, 20000000000, works, "", ""});
    while (static_cast<int>(info.devices.size()) < count());
    info.peers.assign(info.devices.size(), std::vector<bool>(info.devices.size()));
    if (!works) {
        info.fault = info.devices[0].fault = "GPU 0 (Imaginary 3090) is of compute capability 8.6";
        info.remedy = info.devices[0].remedy = "make CUDA_ARCHS=86";
    }
    return info;
}

std::unique_ptr<rn50::Backend> make(int index) {
    if (!works) throw rn50::Error(rn50::Exit::device, info().fault, info().remedy);
    // Shared with the program: shapes, errors, the log, the factory.
    rn50::log::info(rn50::cat("imaginary GPU, shapes like ", rn50::Shape{2, 3}.str()));
    if (const char* const notes = std::getenv("IMAGINARY_NOTES")) {
        const char* const rank = std::getenv("RANK");
        const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
        std::ofstream(notes, std::ios::app) << "rank " << (rank == nullptr ? "none" : rank) << " on GPU " << index << " of "
                                            << (visible == nullptr ? "all" : visible) << std::endl;
    }
    return std::make_unique<ImaginaryGpu>();
}

void require_collectives() {
    if (std::getenv("IMAGINARY_NCCL") == nullptr)
        throw rn50::Error(rn50::Exit::device, "several GPUs need NCCL, which is imaginary too", "set IMAGINARY_NCCL");
}

class ImaginaryNccl : public rn50::Collectives {
  public:
    explicit ImaginaryNccl(std::unique_ptr<rn50::Collectives> gloo) : gloo_(std::move(gloo)) {}
    std::string name() const override { return "NCCL 2.0.0"; }
    void begin_average(const rn50::Tensor& values) override { gloo_->begin_average(values); }
    void finish_averages() override { gloo_->finish_averages(); }
    void broadcast(const rn50::Tensor& values) override {
        gloo_->broadcast(values);
        // As NCCL does when ranks first reach each other.
        if (const char* const file = std::getenv("NCCL_DEBUG_FILE"))
            std::ofstream(file) << "host:1:1 [0] NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct" << std::endl;
    }
    std::vector<rn50::NcclLink> links() const override { return rn50::links_in(rn50::nccl_log()); }
    void gather(const rn50::Tensor& mine, const rn50::Tensor& all) override { gloo_->gather(mine, all); }
    void gather_host(const void* mine, int64_t bytes, void* all) override { gloo_->gather_host(mine, bytes, all); }
    void sum_host(double* numbers, int64_t count) override { gloo_->sum_host(numbers, count); }
    void abort() override { gloo_->abort(); }

  private:
    std::unique_ptr<rn50::Collectives> gloo_;
};

std::unique_ptr<rn50::Collectives> collectives(rn50::Backend& backend, rn50::StoreClient& store,
                                               const rn50::Place& place, std::chrono::milliseconds patience) {
    RN50_REQUIRE(backend.info().name == "Imaginary 3090", "another backend");
    if (std::getenv("IMAGINARY_FAULT") != nullptr && place.rank == 1)
        throw rn50::Error(rn50::Exit::device, "ncclCommInitRankConfig: imaginary", "imagine less");
    return std::make_unique<ImaginaryNccl>(rn50::make_gloo(store, place, patience));
}

}  // namespace

extern "C" const rn50::CudaModule* rn50_cuda_module() {
    static const rn50::CudaModule module{rn50::CudaModule::current_version, info, make, count,
                                         require_collectives,               collectives};
    return &module;
}
CODE
if library whole.so <whole.cpp; then
    refused "a module whose code does not fit the GPU" "$work/whole.so" \
        "GPU 0 (Imaginary 3090) is of compute capability 8.6" "make CUDA_ARCHS=86"
    export IMAGINARY_GPU=1
    take auto "$work/whole.so"
    check "auto takes a GPU that works" eval '[ $code = 3 ] && says "imaginary GPU, shapes like 2x3" && ! says warning'
    take cpu "$work/whole.so"
    check "cpu leaves it alone" eval '[ $code = 3 ] && ! says imaginary && ! says warning'
    examine() { # CODE: doctor, where the module holds this code
        IMAGINARY_CODE=$1 RN50_CUDA_MODULE=$work/whole.so "$program" doctor >out 2>err
        code=$?
    }
    gpu='Imaginary 3090, 20.0 GB free of 24.0 GB, compute capability 8.6'
    examine compute_75
    check "doctor: PTX alone is a slow first start, with what mends it" eval \
        '[ $code = 0 ] && prints "! GPU 0        $gpu; the module holds PTX for it alone" "→ make CUDA_ARCHS=86 makes its machine code"'
    examine sm_90
    check "doctor: no code for the GPU" eval '[ $code = 0 ] && prints "! GPU 0        $gpu: the module holds no code for it" "→ make CUDA_ARCHS=86"'
    examine 'sm_86 compute_86'
    check "doctor describes module and GPU" eval \
        '[ $code = 0 ] && prints "✓ GPU 0        $gpu, machine code for it in the module" && prints "whole.so, CUDA 13.0, code for sm_86 compute_86" && prints "up to CUDA 12.2" && prints "✓ cuDNN        9.1.0; cuBLASLt 13.0.2" && prints "✓ nvJPEG       12.2.5" && prints "Imaginary 3090, 20.0 GB free of 24.0 GB, compute capability 8.6" && prints "backends: cuda, cpu"'
    cp whole.so rn50_cuda.so && mkdir -p bin && cp "$program" rn50 && cp "$program" bin/rn50
    for place in ./rn50 bin/rn50; do
        $place doctor >out 2>err
        code=$?
        check "found beside the program or one folder above: $place" eval '[ $code = 0 ] && prints "$work/rn50_cuda.so, CUDA 13.0"'
    done
    source "$tests/several_gpus.sh"
    source "$tests/faulty_gpu.sh"
else
    code=1
    check "a module can be compiled against src/" false
fi

# --- the self-test, on the CPU, which every machine has ------------------------------------------------------------------
"$program" doctor --self-test --device cpu >out 2>err
code=$?
check "self-test: says that a device beside itself is only repeated in fp32" \
    prints "beside itself in fp32: there fp32 is only repeated, not compared with anything else"
check "self-test: passes on the CPU" eval '[ $code = 0 ] && grep -qE "^all [0-9]+ passed$" out && prints "✓ conv 3x3 backward"'
"$program" doctor --self-test --device cpu --json >out 2>err
code=$?
check "self-test: --json is an object a line: the device, each op, the verdict" eval \
    '[ $code = 0 ] && head -1 out | grep -q "^{\"device\":\"[^\"]" && [ "$(grep -c "^{\"op\":.*\"fault\":\"\",.*}$" out)" -ge 29 ] &&
     tail -1 out | grep -q "^{\"passed\":true,\"ops\":$(($(wc -l <out) - 2)),\"failed\":0}$"'
RN50_CUDA_MODULE='' "$program" doctor --self-test --device cuda >out 2>err
code=$?
check "self-test: without a GPU that was asked for, an error" eval '[ $code = 4 ] && says "no rn50_cuda.so"'
exit $failed
