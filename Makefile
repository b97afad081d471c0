# rn50. `make demo` goes from a bare machine to a trained model; `make help` lists the rest. GNU make 3.82 and newer.
#
# The file has two halves. The upper one is the front door: it installs, probes and then calls this same file again,
# with one job per core unless -j was given. The lower one holds the rules that compile.

# --- what a user may set -------------------------------------------------------------------------------------------------
# CXX=g++-13             the compiler (GCC 11 or newer)
# SANITIZE=address,undefined   an instrumented build in a folder of its own
# CPPFLAGS= LDFLAGS=     extra -I and -L for libraries outside the system's folders
# NVCC=/path/to/nvcc     CUDA's compiler; empty: no GPU module
# CUDA_ARCHS='89 90'     compute capabilities of the GPU module's machine code; 90-virtual adds PTX
# GPU_ONLY=1             a program without the CPU backend, which needs no oneDNN
# JOBS=4  WERROR=0  DATA=data

SHELL := /bin/bash
ifeq ($(origin CXX),default)
  # CentOS 7 keeps its new compilers aside.
  CXX := $(firstword $(wildcard /opt/rh/gcc-toolset-*/root/usr/bin/g++ /opt/rh/devtoolset-11/root/usr/bin/g++) g++)
endif
DATA ?= data
WERROR ?= 1
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

comma := ,
BUILD := build$(if $(SANITIZE),/sanitize-$(subst $(comma),-,$(SANITIZE)))
PROGRAM := $(if $(SANITIZE),$(BUILD)/rn50,rn50)
NVCC ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) $(shell command -v nvcc 2>/dev/null))
override GPU_ONLY := $(filter-out 0,$(GPU_ONLY))

# The flags of a job server show up in MAKEFLAGS only while a recipe is expanded, hence the late `=`.
inner = +@$(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS))$(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))

# --- the front door ------------------------------------------------------------------------------------------------------
.PHONY: all test data demo dist setup deps probe clean help
.DEFAULT_GOAL := all

all: probe
	$(inner) build-program

help:
	@echo 'make              builds ./rn50, and rn50_cuda.so where CUDA and cuDNN are'
	@echo 'make demo         installs missing packages, builds, draws the demo set, trains on it'
	@echo 'make test         installs missing packages, builds, runs every test'
	@echo 'make data         draws the demo set into $(DATA)/'
	@echo 'make setup        installs missing packages (apt, dnf or yum)'
	@echo 'make deps         looks for the libraries and shows what was found'
	@echo 'make dist         builds rn50_cuda.so for every GPU from Turing on, and docs/kernels.md'
	@echo 'make fuzz         feeds damaged files to every parser, ten minutes each (clang)'
	@echo 'make clean        removes what was built (not $(DATA)/ and runs/)'
	@echo 'Settings: SANITIZE=address,undefined  CXX=  JOBS=  CPPFLAGS=  LDFLAGS=  WERROR=0'
	@echo "          NVCC=  CUDA_ARCHS='89 90-virtual'  GPU_ONLY=1"

settings = CXX='$(CXX)' CPPFLAGS='$(CPPFLAGS)' LDFLAGS='$(LDFLAGS)' NVCC='$(NVCC)' GPU_ONLY='$(GPU_ONLY)'
setup:
	@$(settings) tools/setup.sh
probe:
	@$(settings) tools/probe.sh build/deps
deps:
	@$(settings) tools/probe.sh --show build/deps

test: setup
	+@$(MAKE) --no-print-directory probe
	$(inner) build-program build-tests build-make-defects
	@tests/run.sh '$(BUILD)' '$(PROGRAM)'

# Pictures that are there are never touched; the stamp tells whether this version's program drew them.
data: probe
	$(inner) build-make-defects
	@drawer=$$(cat tools/make_defects.cpp tools/defects/*.cpp | cksum); \
	if [ ! -e '$(DATA)/train' ]; then \
	    $(BUILD)/make_defects --out '$(DATA)' && echo "$$drawer" > '$(DATA)/.drawn'; \
	elif [ ! -e '$(DATA)/.drawn' ]; then \
	    echo '$(DATA)/ holds pictures of your own: nothing drawn'; \
	elif [ "$$drawer" != "$$(cat '$(DATA)/.drawn')" ]; then \
	    echo '$(DATA)/ holds the demo set of another version; to draw it anew, remove its train val hard masks first'; \
	else \
	    echo '$(DATA)/ holds the demo set already'; \
	fi

demo: setup
	+@$(MAKE) --no-print-directory all
	+@$(MAKE) --no-print-directory data
	./$(PROGRAM) train '$(DATA)/'

# What this toolkit can make of the generations from Turing to Blackwell, and PTX for those to come.
toolkit_archs = $(patsubst compute_%,%,$(shell '$(NVCC)' --list-gpu-arch 2>/dev/null))
dist_archs = $(filter $(toolkit_archs),75 80 86 89 90 100 120)
dist: probe
	@test -n '$(dist_archs)' || { echo 'make dist needs nvcc, cuDNN and cuBLASLt: see make deps' >&2; exit 1; }
	$(inner) build-program CUDA_ARCHS='$(dist_archs) $(lastword $(dist_archs))-virtual'
	@tools/kernel_table.sh '$(NVCC)' $(patsubst %,$(BUILD)/%.ptxas,$(sort $(wildcard cuda/*.cu))) > build/kernels.md
	@mv build/kernels.md docs/kernels.md
	@echo 'wrote    docs/kernels.md'

clean:
	rm -rf build rn50 rn50_cuda.so

# --- how things are compiled ---------------------------------------------------------------------------------------------
find_cpp = $(wildcard $(1)/*.cpp $(1)/*/*.cpp $(1)/*/*/*.cpp)
SOURCES := $(sort $(filter-out $(if $(GPU_ONLY),src/backend/cpu/%),$(call find_cpp,src)))
TESTS := $(sort $(wildcard tests/*.cpp))

# A file named kernels.cpp is compiled once for each of these; the running processor picks one (RN50_ISA names it). Its wide
# vectors stay inside the file, so how they would be passed between files (-Wpsabi) does not matter; nobody asks
# what a square root did to errno.
ISAS := v2 v3 v4
ISA_FLAGS_v2 := -Wno-psabi -fno-math-errno -march=x86-64-v2 -DRN50_ISA=v2
ISA_FLAGS_v3 := -Wno-psabi -fno-math-errno -march=x86-64-v3 -DRN50_ISA=v3
ISA_FLAGS_v4 := -Wno-psabi -fno-math-errno -march=x86-64-v4 -mprefer-vector-width=512 -DRN50_ISA=v4

KERNELS := $(filter %/kernels.cpp,$(SOURCES))
MAIN := src/cli/main.cpp
PLAIN := $(filter-out $(KERNELS) $(MAIN),$(SOURCES))

MAIN_OBJECT := $(MAIN:%.cpp=$(BUILD)/%.o)
LIB_OBJECTS := $(PLAIN:%.cpp=$(BUILD)/%.o) $(foreach isa,$(ISAS),$(KERNELS:%.cpp=$(BUILD)/%_$(isa).o))
TEST_OBJECTS := $(TESTS:%.cpp=$(BUILD)/%.o)
# The drawer of the demo set stands on base alone, so that it builds whatever else is broken.
DRAWING := $(sort $(wildcard tools/defects/*.cpp))
DRAWING_OBJECTS := $(DRAWING:%.cpp=$(BUILD)/%.o)
DEFECTS_OBJECTS := $(BUILD)/tools/make_defects.o $(DRAWING_OBJECTS)
BASE_OBJECTS := $(filter $(BUILD)/src/base/%,$(LIB_OBJECTS))
LIBRARY := $(BUILD)/librn50.a

# The GPU module is made where the probe found all it needs. In cuda/, kernels and the backend over them stand in .cu; tests
# compile these with CXX, for the emulator (tests/simt.h). What calls cuDNN and cuBLASLt stands in .cpp.
CUDA_HOME := $(if $(NVCC),$(patsubst %/bin/nvcc,%,$(realpath $(NVCC))))
HAVE_CUDA := $(if $(NVCC),$(filter 3,$(words $(wildcard $(patsubst %,build/deps/%.version,cuda cudnn cublaslt)))))
MODULE := $(if $(SANITIZE),,$(if $(HAVE_CUDA),rn50_cuda.so))
CUDA_SOURCES := $(sort $(wildcard cuda/*.cu cuda/*.cpp))
CUDA_OBJECTS := $(patsubst cuda/%,$(BUILD)/cuda/%.o,$(CUDA_SOURCES))
EMULATED := $(filter-out cuda/module.cu,$(filter %.cu,$(CUDA_SOURCES)))
EMULATED_OBJECTS := $(EMULATED:cuda/%.cu=$(BUILD)/tests/simt/%.o)
# What calls libraries is tested on stand-ins for them; these need the libraries' headers.
HAVE_NCCL := $(wildcard build/deps/nccl.version)
LIBRARY_TESTS := $(if $(HAVE_CUDA),$(filter-out $(if $(HAVE_NCCL),,%nccl.cpp),$(sort $(wildcard tests/cuda_libraries/*.cpp))))
# The emulator is there too: its streams are the libraries', and ranks train on it by the make-believe NCCL.
LIBRARY_TEST_OBJECTS := $(LIBRARY_TESTS:%.cpp=$(BUILD)/%.o) $(filter %.cpp.o,$(CUDA_OBJECTS)) $(EMULATED_OBJECTS) \
                        $(addprefix $(BUILD)/tests/,main.o naive.o streams.o simt.o simt_backend.o simt_memory.o simt_products.o)

# Instrumented code misleads GCC's -Wmaybe-uninitialized.
INSTRUMENT := -O1 -g1 -fno-omit-frame-pointer -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -Wno-maybe-uninitialized
BASE_FLAGS := -std=c++17 -march=x86-64-v2 -ffp-contract=off -fopenmp -Wall -Wextra -Wshadow \
              $(if $(SANITIZE),$(INSTRUMENT),-O3) $(if $(filter 1,$(WERROR)),-Werror) -Isrc
# Tests find their files in this folder, also when a copy of the tree is built.
RN50_HOME ?= $(CURDIR)
TEST_FLAGS := -Itools -Icuda -Itests -DRN50_TESTS_DIR='"$(RN50_HOME)/tests"' -DRN50_PROGRAM='"$(RN50_HOME)/$(PROGRAM)"'
# Gloo serves ranks on CPUs.
HAVE_GLOO := $(if $(GPU_ONLY),,$(wildcard build/deps/gloo.version))
LIBS := $(if $(GPU_ONLY),,-ldnnl) -ljpeg -llmdb $(if $(HAVE_GLOO),-lgloo) -lpthread -ldl
FILE_FLAGS :=
compile = $(CXX) $(BASE_FLAGS) $(FILE_FLAGS) $(CPPFLAGS) $(CXXFLAGS) -MMD -MP -c $< -o $@
# The GPU module takes what it shares with the program (errors, the log, the checked entries of the backend page) from the
# program, so all of the library goes in, and rn50's own names are exported.
link = $(CXX) $(BASE_FLAGS) $(CXXFLAGS) $(LDFLAGS) $(filter %.o,$^) -Wl,--whole-archive $(filter %.a,$^) \
       -Wl,--no-whole-archive -Wl,--dynamic-list=src/exports.list $(LIBS) -o $@

# --- the GPU module's flags ----------------------------------------------------------------------------------------------
ifneq ($(HAVE_CUDA),)
  # Without a wish: the GPUs of this machine; else the RTX 4090's machine code, and PTX from which a driver makes code for
  # any other GPU from Turing on when it first meets it.
  present_archs := $(filter $(toolkit_archs),$(sort $(subst .,,$(shell \
                     nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null))))
  CUDA_ARCHS ?= $(if $(present_archs),$(present_archs),89 75-virtual)
endif
real_archs = $(filter-out %-virtual,$(CUDA_ARCHS))
virtual_archs = $(patsubst %-virtual,%,$(filter %-virtual,$(CUDA_ARCHS)))
gencode = $(foreach a,$(real_archs),-gencode arch=compute_$(a),code=sm_$(a)) \
          $(foreach a,$(virtual_archs),-gencode arch=compute_$(a),code=compute_$(a))
arch_names = $(strip $(addprefix sm_,$(real_archs)) $(addprefix compute_,$(virtual_archs)))
# -Wno-deprecated-gpu-targets: whoever asks for an old GPU knows its age.
NVCC_FLAGS = -std=c++17 -O3 --expt-relaxed-constexpr -Wno-deprecated-gpu-targets $(gencode) -Xptxas -v \
             -ccbin '$(lastword $(CXX))' -Isrc -Icuda -DRN50_CUDA_ARCHS='"$(arch_names)"' \
             $(addprefix -Xcompiler=,-fPIC -march=x86-64-v2 -ffp-contract=off -fopenmp -Wall -Wextra -Wshadow \
                                     $(if $(filter 1,$(WERROR)),-Werror))

.PHONY: build-program build-tests build-make-defects without-module FORCE
.DELETE_ON_ERROR:
.SUFFIXES:

# A module of an earlier build, left beside a program of this one, would be loaded by it.
build-program: $(PROGRAM) $(if $(MODULE)$(SANITIZE),$(MODULE),without-module)
without-module:
	@if [ -e $(BUILD)/cuda/flags ]; then rm -f rn50_cuda.so $(BUILD)/cuda/flags; echo 'removed  ./rn50_cuda.so of an earlier build'; fi
build-tests: $(BUILD)/rn50_tests $(if $(LIBRARY_TESTS),$(BUILD)/cuda_library_tests)
build-make-defects: $(BUILD)/make_defects

# These two change only when what they say changes: everything is compiled again under other flags, and the archive is
# made anew when a file came or went.
export RN50_FLAGS := $(CXX) $(BASE_FLAGS) $(CPPFLAGS) $(CXXFLAGS) $(LDFLAGS) $(TEST_FLAGS) $(foreach i,$(ISAS),$(ISA_FLAGS_$(i)))
export RN50_SOURCES := $(SOURCES) $(TESTS) $(DRAWING) $(CUDA_SOURCES) $(LIBRARY_TESTS)
export RN50_CUDA_FLAGS := $(NVCC) $(NVCC_FLAGS)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D); printf '%s\n' "$$RN50_FLAGS" | cmp -s - $@ || printf '%s\n' "$$RN50_FLAGS" > $@
$(BUILD)/sources: FORCE
	@mkdir -p $(@D); printf '%s\n' "$$RN50_SOURCES" | cmp -s - $@ || printf '%s\n' "$$RN50_SOURCES" > $@

$(BUILD)/cuda/flags: FORCE
	@mkdir -p $(@D); printf '%s\n' "$$RN50_CUDA_FLAGS" | cmp -s - $@ || printf '%s\n' "$$RN50_CUDA_FLAGS" > $@

$(PROGRAM): $(MAIN_OBJECT) $(LIBRARY)
	@echo "link     $@"
	@$(link)
	@echo "built    ./$@"

$(BUILD)/rn50_tests: $(TEST_OBJECTS) $(EMULATED_OBJECTS) $(DRAWING_OBJECTS) $(LIBRARY) $(BUILD)/sources
	@echo "link     $@"
	@$(link) $(EMULATOR_FLAGS)

$(BUILD)/cuda_library_tests: $(LIBRARY_TEST_OBJECTS) $(LIBRARY) $(BUILD)/sources
	@echo "link     $@"
	@$(link)

$(BUILD)/make_defects: $(DEFECTS_OBJECTS) $(BASE_OBJECTS) $(BUILD)/sources
	@echo "link     $@"
	@$(CXX) $(BASE_FLAGS) $(CXXFLAGS) $(LDFLAGS) $(filter %.o,$^) -ljpeg -lpthread -o $@

$(LIBRARY): $(LIB_OBJECTS) $(BUILD)/sources
	@rm -f $@; ar qcs $@ $(LIB_OBJECTS)

$(MAIN_OBJECT) $(PLAIN:%.cpp=$(BUILD)/%.o) $(DEFECTS_OBJECTS): $(BUILD)/%.o: %.cpp $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "compile  $<"
	@$(compile)

# The one file that knows whether libjpeg decodes parts of pictures.
HAVE_PARTS := $(wildcard build/deps/libjpeg_partial.version)
$(BUILD)/src/pipeline/jpeg.o: FILE_FLAGS := $(if $(HAVE_PARTS),-DRN50_JPEG_PARTIAL)
$(BUILD)/src/pipeline/jpeg.o: $(HAVE_PARTS)

# The one file that knows whether ranks on CPUs have Gloo.
$(BUILD)/src/comm/gloo.o: FILE_FLAGS := $(if $(HAVE_GLOO),-DRN50_GLOO)
$(BUILD)/src/comm/gloo.o: $(HAVE_GLOO) $(BUILD)/sources

# The one file that knows whether there is a CPU backend.
$(BUILD)/src/backend/factory.o: FILE_FLAGS := $(if $(GPU_ONLY),-DRN50_GPU_ONLY)
$(BUILD)/src/backend/factory.o: $(BUILD)/sources

$(TEST_OBJECTS): $(BUILD)/%.o: %.cpp $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "compile  $<"
	@$(compile) $(TEST_FLAGS)

$(LIBRARY_TESTS:%.cpp=$(BUILD)/%.o): $(BUILD)/%.o: %.cpp $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "compile  $<"
	@$(compile) $(TEST_FLAGS) -isystem '$(CUDA_HOME)/include'

$(BUILD)/tests/test_simt.o: FILE_FLAGS := -Wno-unknown-pragmas
# EMULATOR_FLAGS: with which tools/mutate_kernels.sh instruments the kernels, the emulator and the red zones of arenas, and
# links; nothing else.
$(patsubst %.cpp,$(BUILD)/%.o,$(wildcard tests/simt*.cpp) src/tensor/arena.cpp): FILE_FLAGS := $(EMULATOR_FLAGS)
$(EMULATED_OBJECTS): FILE_FLAGS := -x c++ -DRN50_SIMT -Wno-unknown-pragmas -Wno-maybe-uninitialized $(EMULATOR_FLAGS)
$(EMULATED_OBJECTS): $(BUILD)/tests/simt/%.o: cuda/%.cu $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "compile  $< (for the emulator)"
	@$(compile) $(TEST_FLAGS)

define isa_rule
$(KERNELS:%.cpp=$(BUILD)/%_$(1).o): $(BUILD)/%_$(1).o: %.cpp $(BUILD)/flags
	@mkdir -p $$(@D)
	@echo "compile  $$< ($(1))"
	@$$(compile) $(ISA_FLAGS_$(1))
endef
ifneq ($(KERNELS),)
  $(foreach isa,$(ISAS),$(eval $(call isa_rule,$(isa))))
endif

include tests/fuzz/fuzz.mk

# --- the GPU module ------------------------------------------------------------------------------------------------------
$(BUILD)/cuda/%.cu.o: cuda/%.cu $(BUILD)/cuda/flags
	@mkdir -p $(@D)
	@echo "nvcc     $< ($(arch_names))"
	@'$(NVCC)' $(NVCC_FLAGS) $(CPPFLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@ 2> $(@:.o=.ptxas) || \
	    { cat $(@:.o=.ptxas) >&2; exit 1; }
	@grep -i warning $(@:.o=.ptxas) >&2 || true

$(BUILD)/cuda/%.cpp.o: cuda/%.cpp $(BUILD)/flags $(BUILD)/cuda/flags
	@mkdir -p $(@D)
	@echo "compile  $<"
	@$(compile) -fPIC -Icuda -isystem '$(CUDA_HOME)/include'

# The files that know whether nccl.h was there; NCCL itself is looked for when several GPUs train.
NCCL_OBJECTS := $(patsubst %,$(BUILD)/cuda/nccl_%.cpp.o,library collectives)
$(NCCL_OBJECTS): FILE_FLAGS := $(if $(HAVE_NCCL),-DRN50_NCCL)
$(NCCL_OBJECTS): $(HAVE_NCCL)

# Its only export is the door; everything of rn50 that it lacks comes from the program that loads it.
$(MODULE): $(CUDA_OBJECTS) cuda/exports.map $(BUILD)/sources
	@echo "link     $@"
	@$(CXX) -shared -fopenmp $(CXXFLAGS) $(LDFLAGS) $(filter %.o,$^) -Wl,--version-script=cuda/exports.map \
	    -L'$(CUDA_HOME)/lib64' -Wl,-rpath,'$$ORIGIN:$(CUDA_HOME)/lib64' \
	    -lcudnn -lcublasLt -lcudart_static -lrt -lpthread -ldl -o $@
	@echo "built    ./$@ for $(arch_names)"

# What a compile read, so that a changed header compiles its readers again.
-include $(patsubst %.o,%.d,$(MAIN_OBJECT) $(LIB_OBJECTS) $(TEST_OBJECTS) $(DEFECTS_OBJECTS) $(EMULATED_OBJECTS) \
                            $(CUDA_OBJECTS) $(LIBRARY_TEST_OBJECTS))
