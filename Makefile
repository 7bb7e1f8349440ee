# SPDX-License-Identifier: Apache-2.0
# Everything a newcomer needs; `make` alone prints this list. Builds lie in build/PRESET.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PRESET ?= release
JOBS ?= $(shell nproc)

.PHONY: help setup build demo shell test lint bench soak fuzz package package-test format clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

setup: ## Install the Debian packages that are missing (root or sudo)
	@tools/setup

build: setup ## Build Holdfast; PRESET=debug|release|asan|tsan|clang|fuzz (release)
	@tools/build $(PRESET)

demo: setup ## Set up, build, boot Debian's kernel on guest_memfd and show it
	@tools/build --only release holdfast holdfastctl holdfast-conformance
	@tools/demo

shell: setup ## The same guest with a shell in it, for you
	@tools/build --only release holdfast holdfastctl holdfast-conformance
	@tools/demo --shell

test: setup ## Set up, build, run every test in every lane (about an hour on 2 cores)
	@tests/run

lint: setup ## Format, layers, headers, clang-tidy, scripts
	@tools/lint

bench: setup ## Run the benchmarks in the lab; writes build/bench/results.json
	@tools/build release
	@bench/run

soak: setup ## The long forms of the tests: hours
	@tests/run --long

fuzz: setup ## Fuzz every parser, SECONDS_EACH=60 each
	@tools/build fuzz
	@fuzz/run $(or $(SECONDS_EACH),60)

package: setup ## Debian packages in build/package
	@tools/build release
	@tools/package

package-test: package ## Install the packages' files into a folder and build against them
	@tests/package/run

format: setup ## Let clang-format lay out every file
	@git ls-files '*.cc' '*.h' | xargs clang-format-19 -i

clean: ## Remove build/ (the lab's kernels stay in the cache)
	rm -rf build
