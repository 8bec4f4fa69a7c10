# SPDX-License-Identifier: Apache-2.0
#
# The everyday commands. What is built, and how, is in meson.build; what the tests are, in tools/run-tests.

BUILD = build
PREFIX = /usr/local
SEEDS = 1000
SEED =
FUZZ_SECONDS = 60
export FUZZ_SECONDS

.PHONY: all help setup test test-long demo bench sim model mutants campaign soak fuzz fmt check install deb abi-baseline clean demo-cluster

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

$(BUILD)/build.ninja: setup
	@test -f $@ || meson setup --prefix=$(PREFIX) $(BUILD)

setup:
	@packaging/setup

help:
	@echo 'make             build everything into $(BUILD)/ (installs missing Debian packages first)'
	@echo 'make setup       install what is missing of packaging/debian-packages.txt, nothing else'
	@echo 'make demo        an exchange that is killed in mid-flow, again and again, and loses nothing'
	@echo 'make demo-cluster  an exchange on three nodes whose primary is killed, again and again'
	@echo 'make test        all everyday tests; the last line says how many passed and failed'
	@echo 'make test-long   planted bugs, sanitizers, coverage, fuzzing, long simulations'
	@echo 'make bench       benchmarks, side by side with the floors of this machine and other databases'
	@echo 'make sim         simulate SEEDS=$(SEEDS) seeds; SEED=7 replays one exactly'
	@echo 'make model       explore the model of the cluster protocol in full, and with each rule left out'
	@echo 'make mutants     check that every planted bug is caught'
	@echo 'make campaign    kills, power losses and simulations for hours; make test-long runs a part of them'
	@echo 'make soak        simulate until stopped'
	@echo 'make fuzz        fuzz each target for FUZZ_SECONDS=$(FUZZ_SECONDS)'
	@echo 'make fmt         format all C files'
	@echo 'make check       format, licences, includes, symbols, clang-tidy, cppcheck'
	@echo 'make install     install below PREFIX=$(PREFIX) (DESTDIR is respected)'
	@echo 'make deb         Debian packages, into $(BUILD)/deb'
	@echo 'make abi-baseline  the library'"'"'s present ABI becomes the one that later builds are compared with'
	@echo 'make clean       remove all build directories'

test: all
	@tools/run-tests short

test-long: all
	@FUZZ_SECONDS=10 tools/run-tests long

demo: all
	@tools/demo

demo-cluster: all
	@tools/demo-cluster

bench: all
	@$(BUILD)/shelf bench all

sim: all
	@$(BUILD)/sim/sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))
	@$(BUILD)/sim/sim --cluster $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))
	@$(BUILD)/sim/sim --group $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

model: setup
	@tools/check-model all

mutants campaign soak check: all
	@tools/run-tests $@

fuzz: all
	@tools/run-tests fuzz_time

fmt: setup
	@tools/check-format --fix

install: all
	@meson install -C $(BUILD) --no-rebuild

deb: setup
	@packaging/deb $(BUILD)

abi-baseline: all
	@packaging/abi $(BUILD) --renew

clean:
	rm -rf build build-asan build-tsan build-coverage build-fuzz
