# SPDX-License-Identifier: Apache-2.0
# `make` lists the targets. A newcomer needs two: `make demo` and `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

# Where Go's own archive unpacks, and where nginx, haproxy and ip live.
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin

GO ?= go
CLANG_FORMAT ?= clang-format-19
GOLANGCI_LINT_VERSION ?= v2.15.0

PREFIX ?= /usr/local
DESTDIR ?=

# What `synspy version` says. Outside a git checkout there is nothing to ask.
VERSION ?= $(or $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null),devel)
COMMIT ?= $(or $(shell git rev-parse --short=12 HEAD 2>/dev/null),unknown)
# Without gRPC's trace pages: they make the program 3.4 MB larger.
TAGS := grpcnotrace
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# The kernels to boot, by the names `bin/vm kernels` prints. Empty: all of them; standard: the three of CI,
# with fewer end-to-end tests.
KERNEL ?=
# Under MTTCG a CPU may run a breakpoint of text patching that is gone already, which kills the guest
# (int3); one thread for all CPUs of a machine never does.
ACCEL ?= tcg,thread=single
# How long a soak plays.
SOAK ?= 5m
# How many machines at once (empty: as CPUs and memory allow), and further flags of `bin/vm matrix`.
JOBS ?=
VM_FLAGS ?=
# Packages whose tests are run inside the virtual machines too.
VM_TEST_PACKAGES ?= internal/kernel internal/kernel/proc internal/owner internal/thread \
  internal/probe internal/probe/load internal/probe/sampler internal/probe/watch internal/probe/device
# Which end-to-end tests run there, once per backend; an emulated machine is twenty times slower.
E2E_RUN ?= TestTUN|TestAccept|TestSlowAccept|TestOwners|TestFilters|TestRate|TestEntryState|TestCurrent|TestVanished|TestHostile|TestIncident
CI_E2E_RUN ?= TestTUN|TestAccept|TestOwners|TestCurrent

# Static, and the same bytes with and without a C compiler on the machine.
export CGO_ENABLED ?= 0

root := scripts/as-root
golangci_lint := bin/tools/golangci-lint-$(GOLANGCI_LINT_VERSION)
step = @printf '\n==> %s\n' '$(subst ','\'',$(1))'

.PHONY: help
help: ## List the targets
	@echo 'usage: make TARGET [VARIABLE=VALUE]...'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo 'demo, test and bench install missing packages through apt, and use sudo where root is needed.'
	@echo 'NO_INSTALL=1 only says what is missing.'

## What a newcomer runs

.PHONY: demo
demo: ## See synspy explain a full accept queue (needs root for BPF; no compiler)
	@scripts/install-deps.sh demo
	@$(MAKE) build
	@if [[ $$(id -u) != 0 ]]; then echo 'demo: sudo, because loading BPF and making a network namespace need root'; fi
	$(root) bin/synspy lab run slow-accept
	@printf '\nWhy does it not accept? synspy diagnose says so, of a server that sleeps after each accept():\n\n'
	$(root) bin/synspy lab run diagnose-blocked
	@printf '\nNext, on a server of yours:  sudo bin/synspy diagnose --port 443 --report report.html\nMore to play:                bin/synspy lab list\n'

.PHONY: test
test: ## Run everything that CI runs
	@scripts/install-deps.sh test
	$(call step,build)
	@$(MAKE) build
	$(call step,lint)
	@$(MAKE) lint
	$(call step,generated code)
	@$(MAKE) check-generate
	$(call step,unit tests on this kernel: $(shell uname -r))
	@$(MAKE) test-unit
	$(call step,virtual machines: $(or $(KERNEL),standard))
	@if scripts/debian-mirror.sh; then $(MAKE) test-vm KERNEL='$(or $(KERNEL),standard)' E2E_RUN='$(CI_E2E_RUN)'; fi
	$(call step,instructions that packets pay)
	@if scripts/debian-mirror.sh; then $(MAKE) check-instructions ARGS='$(CI_INSTRUCTIONS)'; fi

## Building

.PHONY: build
build: need-go ## Build bin/synspy, static
	$(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/synspy ./cmd/synspy

# What bpf/ includes comes before it is compiled; the rest is made from types that have what that says.
write_generated = while read -r page file; do \
		echo "$(GO) run ./test/docs $$page > $$file"; \
		$(GO) run ./test/docs "$$page" > "$$file.new"; mv "$$file.new" "$$file"; \
	done

.PHONY: generate
generate: need-go ## Compile bpf/ to internal/bpf (clang-19), and write what is made from tables and types
	@scripts/install-deps.sh generate
	@scripts/generated.sh | grep ' bpf/' | $(write_generated)
	$(GO) generate ./internal/bpf
	@scripts/generated.sh | grep -v ' bpf/' | $(write_generated)

.PHONY: check-generate
check-generate: need-go ## Fail if what is generated is not what it is generated from
	@scripts/install-deps.sh generate
	@scripts/check-generate.sh

.PHONY: format
format: need-go ## Format Go and C
	@scripts/install-deps.sh lint
	gofmt -w .
	$(CLANG_FORMAT) -i $(wildcard bpf/*.c bpf/*.h)

.PHONY: install
install: ## Install bin/synspy under DESTDIR/PREFIX (after make build)
	@[[ -x bin/synspy ]] || { echo 'install: no bin/synspy: run make build first' >&2; exit 1; }
	install -D -m 0755 bin/synspy $(DESTDIR)$(PREFIX)/bin/synspy

.PHONY: clean
clean: ## Remove what make built
	rm -rf bin

## Checking

.PHONY: lint
lint: need-go $(golangci_lint) check-vagrant ## go vet, gofmt, clang-format, golangci-lint (with staticcheck), dead code, tidy modules, architecture
	@scripts/install-deps.sh lint
	@$(GO) mod tidy -diff || { echo 'go.mod is not tidy: run go mod tidy' >&2; exit 1; }
	$(GO) vet ./...
	@dead=$$($(GO) tool deadcode -test ./...) || exit; if [[ $$dead ]]; then \
		echo "nothing calls these, so remove them:" >&2; echo "$$dead" >&2; exit 1; fi
	@unformatted=$$(gofmt -l .); if [[ $$unformatted ]]; then \
		echo "not formatted, run make format:" $$unformatted >&2; exit 1; fi
	@$(CLANG_FORMAT) --dry-run -Werror $(wildcard bpf/*.c bpf/*.h) || { \
		echo 'not formatted, run make format' >&2; exit 1; }
	$(golangci_lint) run ./...
	$(GO) test -count=1 ./test/architecture

# Built from source once; about 100 s on two cores.
$(golangci_lint): | need-go
	@mkdir -p $(@D)
	env -u GOOS -u GOARCH GOBIN=$(CURDIR)/$(@D) \
		$(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv $(@D)/golangci-lint $@

# Vagrant insists on a hypervisor unless told otherwise, and on a home to write to.
.PHONY: check-vagrant
check-vagrant: ## Validate the Vagrantfile, where vagrant is installed
	@if command -v vagrant >/dev/null; then \
		home=$$(mktemp -d); trap 'rm -rf "$$home"' EXIT; \
		VAGRANT_HOME=$$home VAGRANT_CHECKPOINT_DISABLE=1 vagrant validate --ignore-provider; \
	else \
		echo 'check-vagrant: vagrant is not installed: Vagrantfile not checked'; \
	fi

.PHONY: test-unit
test-unit: need-go ## Run go test ./... on this machine's kernel (only the tests run as root)
	@$(root) true
	$(GO) test -count=1 -timeout=15m -exec '$(CURDIR)/$(root)' $(GO_TEST_FLAGS) ./...

.PHONY: soak
soak: build ## Play every scenario, shuffled, two at a time, under one trace: SOAK=5m
	$(root) bin/synspy lab run all --soak $(SOAK)

.PHONY: test-race
test-race: need-go ## The same under the race detector (needs a C compiler)
	@CGO_ENABLED=1 $(MAKE) test-unit GO_TEST_FLAGS=-race

# Not empty: emulated arm64 machines are to be booted too.
arm64 = $(if $(KERNEL),$(filter %-arm64,$(KERNEL)),all)

.PHONY: test-vm
test-vm: build bin/vm ## Run tests and lab on other kernels: KERNEL="6.1 6.12-arm64" (default: all), JOBS=2
	@scripts/install-deps.sh matrix $(if $(arm64),matrix-arm64)
	@$(MAKE) vm-tests
	@if [[ '$(arm64)' ]]; then GOARCH=arm64 $(MAKE) vm-tests vm_bin=bin/arm64; fi
	@set -x; bin/vm matrix --accel $(ACCEL) --synspy bin/synspy $(KERNEL:%=--kernel %) $(JOBS:%=--jobs %) \
		$(foreach package,$(VM_TEST_PACKAGES),--test-binary $(notdir $(package))=bin/$(notdir $(package)).test) \
		--end-to-end e2e=bin/e2e.test --end-to-end-run '$(E2E_RUN)' \
		--module af_packet --file-with-libs "$$(command -v tcpdump)" --cell-timeout 15m --timeout 60m $(VM_FLAGS)

# What runs in the guests, for GOARCH; one of another architecture looks in bin/arm64 for it.
vm_bin := bin
.PHONY: vm-tests
vm-tests: need-go
	@$(if $(filter-out bin,$(vm_bin)),$(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o $(vm_bin)/synspy ./cmd/synspy)
	@for package in $(VM_TEST_PACKAGES); do \
		$(GO) test -c -trimpath -o "$(vm_bin)/$${package##*/}.test" "./$$package"; \
	done
	$(GO) test -c -trimpath -o $(vm_bin)/e2e.test ./test/e2e

.PHONY: bin/vm
bin/vm: need-go
	$(GO) build -trimpath -o $@ ./test/vm

.PHONY: bin/bench
bin/bench: need-go
	$(GO) build -trimpath -o $@ ./test/bench

.PHONY: bench
bench: need-go ## Measure what synspy costs, next to a bpftrace script: ARGS=-quick, PEER=script.bt
	@scripts/install-deps.sh bench
	@$(MAKE) build bin/vm bin/bench
	bin/bench $(if $(PEER),-peer $(PEER)) $(ARGS)

.PHONY: bench-instructions
bench-instructions: need-go ## Count what packets pay for synspy in instructions: ARGS="-verbs trace,empty -backends trampoline"
	@scripts/install-deps.sh bench
	@$(MAKE) build bin/vm bin/bench
	bin/bench instructions $(ARGS)

# The figures that no change may raise unseen, and what they are counted with.
costs := test/bench/costs.json
guarded := -verbs trace,trace-all,diagnose -programs=false
# What CI counts of them: one boot, of a quarter of a minute on an idle machine.
CI_INSTRUCTIONS ?= -verbs trace -backends trampoline,tracepoint

.PHONY: keep-instructions
keep-instructions: build bin/vm bin/bench ## Count what synspy adds, three times, and keep the figures that CI compares with
	@scripts/install-deps.sh matrix
	bin/bench instructions $(guarded) -boots 3 -keep $(costs)

.PHONY: check-instructions
check-instructions: build bin/vm bin/bench ## Fail if packets pay more for synspy than the figures kept say: ARGS="-verbs trace"
	@scripts/install-deps.sh matrix
	bin/bench instructions $(guarded) -guard $(costs) $(ARGS)

.PHONY: bench-requests
bench-requests: build bin/vm bin/bench ## Compare requests a second of servers that close connections: ARGS="-pairs 20 -kernel 6.12"
	$(root) bin/bench requests $(ARGS)

.PHONY: deps
deps: ## Install what make test needs, and nothing else
	@scripts/install-deps.sh test

.PHONY: need-go
need-go:
	@command -v $(GO) >/dev/null || { echo 'make: no go on PATH: install the Go that go.mod names, or later' >&2; exit 1; }
