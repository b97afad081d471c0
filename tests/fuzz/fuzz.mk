# `make fuzz`: libFuzzer feeds damaged files to every parser of what others wrote (tests/fuzz/*.cpp), each for
# FUZZ_SECONDS, under the address and undefined-behaviour sanitizers. Needs clang with its runtime.
#   make fuzz [FUZZ_SECONDS=600] [FUZZERS='jpeg tar'] [FUZZ_CXX=clang++]
FUZZ_CXX ?= clang++
FUZZ_SECONDS ?= 600
FUZZERS ?= $(patsubst tests/fuzz/%.cpp,%,$(wildcard tests/fuzz/*.cpp))
FUZZ := build/fuzz
FUZZ_SANITIZERS := address,undefined -fno-sanitize-recover=all
FUZZ_FLAGS := -std=c++17 -march=x86-64-v2 -O1 -g -Wall -Wextra -Isrc -fsanitize=fuzzer-no-link,$(FUZZ_SANITIZERS)
FUZZ_SOURCES := $(filter src/base/% src/tensor/% src/format/% src/pipeline/% \
    src/comm/addresses.cpp src/comm/place.cpp src/comm/standing.cpp src/comm/store_client.cpp src/comm/store_server.cpp \
    src/comm/straggler.cpp,$(PLAIN))
FUZZ_KERNELS := $(filter src/pipeline/%,$(KERNELS))
FUZZ_OBJECTS := $(FUZZ_SOURCES:%.cpp=$(FUZZ)/%.o) $(foreach isa,$(ISAS),$(FUZZ_KERNELS:%.cpp=$(FUZZ)/%_$(isa).o))

.PHONY: fuzz build-fuzz
fuzz: probe
	@command -v '$(FUZZ_CXX)' >/dev/null || \
	    { echo 'make fuzz needs clang and its runtime: apt-get install clang libclang-rt-dev | dnf install clang compiler-rt' >&2; exit 1; }
	$(inner) build-fuzz
	@tests/fuzz/run.sh '$(FUZZ)' '$(FUZZ_SECONDS)' $(FUZZERS)

build-fuzz: $(FUZZERS:%=$(FUZZ)/%)

$(FUZZ_SOURCES:%.cpp=$(FUZZ)/%.o): $(FUZZ)/%.o: %.cpp tests/fuzz/fuzz.mk
	@mkdir -p $(@D)
	@echo "compile  $< (to fuzz)"
	@$(FUZZ_CXX) $(FUZZ_FLAGS) $(if $(filter %/jpeg.cpp,$<),$(if $(HAVE_PARTS),-DRN50_JPEG_PARTIAL)) $(CPPFLAGS) -MMD -MP -c $< -o $@

define fuzz_isa_rule
$(FUZZ_KERNELS:%.cpp=$(FUZZ)/%_$(1).o): $(FUZZ)/%_$(1).o: %.cpp tests/fuzz/fuzz.mk
	@mkdir -p $$(@D)
	@echo "compile  $$< ($(1), to fuzz)"
	@$(FUZZ_CXX) $(FUZZ_FLAGS) $(ISA_FLAGS_$(1)) $(CPPFLAGS) -MMD -MP -c $$< -o $$@
endef
$(foreach isa,$(ISAS),$(eval $(call fuzz_isa_rule,$(isa))))

$(FUZZ)/librn50.a: $(FUZZ_OBJECTS)
	@rm -f $@; ar qcs $@ $^

$(FUZZERS:%=$(FUZZ)/%): $(FUZZ)/%: tests/fuzz/%.cpp tests/fuzz/fuzz.mk $(FUZZ)/librn50.a
	@echo "link     $@"
	@$(FUZZ_CXX) $(subst fuzzer-no-link,fuzzer,$(FUZZ_FLAGS)) $(CPPFLAGS) $< $(LDFLAGS) $(FUZZ)/librn50.a $(filter-out -ldnnl,$(LIBS)) -o $@

-include $(FUZZ_OBJECTS:.o=.d)
