# The commands of everyday work. Only Go is needed for build and test; the
# others say what they miss. "make help" lists them.

GO ?= go
FUZZTIME ?= 30m
SOAK ?= 20m

.DEFAULT_GOAL := build
.PHONY: help build test race lint fuzz soak test-clients test-observability charts charts-docs image e2e bench \
	bench-preload compare ci

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the binary, in this folder
	CGO_ENABLED=0 $(GO) build -trimpath -tags nethttpomithttp2 -ldflags '-s -w' -o carpool ./cmd/carpool

test: ## what the README says
	$(GO) test ./...

race:
	$(GO) test -race ./...

lint: ## formatting, vet (also for macOS), staticcheck
	.ci/lint

fuzz: ## each fuzz target for FUZZTIME
	.ci/fuzz $(FUZZTIME)

soak: ## mixed clients against misbehaving upstreams, for SOAK
	$(GO) test ./cmd/carpool/internal/soak -run 'TestSoak$$' -soak $(SOAK) -timeout 2h -v

test-clients: ## real clients (Node.js 10 to 26 and others) and real servers
	cd .ci/clients && $(GO) test -count=1 ./...

test-observability: ## dashboard, alerts and queries against what carpool exports
	cd .ci/observability && $(GO) test -count=1 ./...

image: ## the image, built with buildah and checked, in dist/image.tar
	.ci/image

e2e: ## on a real cluster; .ci/e2e/run says what it needs
	.ci/e2e/run

charts: ## the charts and the admission policy, without a cluster
	cd .ci/charts && $(GO) test -count=1 ./...

charts-docs: ## the chart's README, from its values
	$(GO) run github.com/norwoodj/helm-docs/cmd/helm-docs@v1.14.2 --chart-search-root charts --chart-to-generate charts/carpool

bench: ## allocations and time per request, in one process
	$(GO) test ./proxy ./proxy/http1 ./pool ./internal/sock -run '^$$' -bench . -benchmem

COMPARE ?=
compare: ## carpool beside HAProxy, Envoy, nginx and Squid, an hour; COMPARE=--quick: two minutes; COMPARE=--help
	@$(GO) build -C .ci/compare -o ../../dist/compare .
	@dist/compare $(COMPARE)

ROUNDS ?= 11
bench-preload: ## CPU a call of Node 12 and 18, core and axios 0.21, http and https: alone, and with carpool preload
	cd .ci/clients && $(GO) test -count=1 -run 'TestPreloadCost$$' -cost-rounds $(ROUNDS) -timeout 60m -v .

ci: ## everything that CI runs
	bash .ci/run
