# rn50. `make demo` goes from a bare machine to a trained model; `make help` lists the rest. GNU make 3.82 and newer.
#
# The file has two halves. The upper one is the front door: it installs, probes and then calls this same file again,
# with one job per core unless -j was given. The lower one holds the rules that compile.

# --- what a user may set -------------------------------------------------------------------------------------------------
# CXX=g++-13             the compiler (GCC 11 or newer)
# SANITIZE=address,undefined   an instrumented build in a folder of its own
# CPPFLAGS= LDFLAGS=     extra -I and -L for libraries outside the system's folders
# JOBS=4  WERROR=0  DATA=data  NVCC=/path/to/nvcc

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

# The flags of a job server show up in MAKEFLAGS only while a recipe is expanded, hence the late `=`.
inner = +@$(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS))$(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))

# --- the front door ------------------------------------------------------------------------------------------------------
.PHONY: all test data demo setup deps probe clean help
.DEFAULT_GOAL := all

all: probe
	$(inner) build-program

help:
	@echo 'make              builds ./rn50'
	@echo 'make demo         installs missing packages, builds, draws the demo set, trains on it'
	@echo 'make test         installs missing packages, builds, runs every test'
	@echo 'make data         draws the demo set into $(DATA)/'
	@echo 'make setup        installs missing packages (apt, dnf or yum)'
	@echo 'make deps         looks for the libraries and shows what was found'
	@echo 'make clean        removes what was built (not $(DATA)/ and runs/)'
	@echo 'Settings: SANITIZE=address,undefined  CXX=  JOBS=  CPPFLAGS=  LDFLAGS=  WERROR=0'

settings = CXX='$(CXX)' CPPFLAGS='$(CPPFLAGS)' LDFLAGS='$(LDFLAGS)' NVCC='$(NVCC)'
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

clean:
	rm -rf build rn50

# --- how things are compiled ---------------------------------------------------------------------------------------------
find_cpp = $(wildcard $(1)/*.cpp $(1)/*/*.cpp $(1)/*/*/*.cpp)
SOURCES := $(sort $(call find_cpp,src))
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

# Instrumented code misleads GCC's -Wmaybe-uninitialized.
INSTRUMENT := -O1 -g -fno-omit-frame-pointer -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -Wno-maybe-uninitialized
BASE_FLAGS := -std=c++17 -march=x86-64-v2 -ffp-contract=off -fopenmp -Wall -Wextra -Wshadow \
              $(if $(SANITIZE),$(INSTRUMENT),-O3) $(if $(filter 1,$(WERROR)),-Werror) -Isrc
# Tests find their files in this folder, also when a copy of the tree is built.
RN50_HOME ?= $(CURDIR)
TEST_FLAGS := -Itools -DRN50_TESTS_DIR='"$(RN50_HOME)/tests"' -DRN50_PROGRAM='"$(RN50_HOME)/$(PROGRAM)"'
LIBS := -ldnnl -ljpeg -lpthread -ldl
compile = $(CXX) $(BASE_FLAGS) $(CPPFLAGS) $(CXXFLAGS) -MMD -MP -c $< -o $@
link = $(CXX) $(BASE_FLAGS) $(CXXFLAGS) $(LDFLAGS) $(filter %.o %.a,$^) $(LIBS) -o $@

.PHONY: build-program build-tests build-make-defects FORCE
.DELETE_ON_ERROR:
.SUFFIXES:

build-program: $(PROGRAM)
build-tests: $(BUILD)/rn50_tests
build-make-defects: $(BUILD)/make_defects

# These two change only when what they say changes: everything is compiled again under other flags, and the archive is
# made anew when a file came or went.
export RN50_FLAGS := $(CXX) $(BASE_FLAGS) $(CPPFLAGS) $(CXXFLAGS) $(LDFLAGS) $(TEST_FLAGS) $(foreach i,$(ISAS),$(ISA_FLAGS_$(i)))
export RN50_SOURCES := $(SOURCES) $(TESTS) $(DRAWING)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D); printf '%s\n' "$$RN50_FLAGS" | cmp -s - $@ || printf '%s\n' "$$RN50_FLAGS" > $@
$(BUILD)/sources: FORCE
	@mkdir -p $(@D); printf '%s\n' "$$RN50_SOURCES" | cmp -s - $@ || printf '%s\n' "$$RN50_SOURCES" > $@

$(PROGRAM): $(MAIN_OBJECT) $(LIBRARY)
	@echo "link     $@"
	@$(link)
	@echo "built    ./$@"

$(BUILD)/rn50_tests: $(TEST_OBJECTS) $(DRAWING_OBJECTS) $(LIBRARY) $(BUILD)/sources
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

$(TEST_OBJECTS): $(BUILD)/%.o: %.cpp $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "compile  $<"
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

# What a compile read, so that a changed header compiles its readers again.
-include $(patsubst %.o,%.d,$(MAIN_OBJECT) $(LIB_OBJECTS) $(TEST_OBJECTS) $(DEFECTS_OBJECTS))
