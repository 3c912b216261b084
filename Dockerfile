# The image of carpool: one static binary and the certificate authorities it
# trusts, nothing else. Built for another architecture it is cross-compiled,
# so no emulation is needed:
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=1.0.0 .

# The build needs Go and ca-certificates; any image with both will do.
ARG GO_IMAGE=docker.io/library/golang:1.26

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
ARG GOPROXY
ENV CGO_ENABLED=0 GOTOOLCHAIN=local
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod \
    go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=unreleased
# net/http serves the admin port and asks the API server: it needs no HTTP/2 of its
# own, which is half a megabyte.
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -tags nethttpomithttp2 \
      -ldflags "-s -w -X github.com/carpoolproxy/carpool/cmd/carpool/internal/program.buildVersion=$VERSION" -o /out/carpool ./cmd/carpool

FROM scratch
ARG VERSION=unreleased
ARG REVISION=
LABEL org.opencontainers.image.title="carpool" \
      org.opencontainers.image.description="Sidecar egress proxy that pools an app's outbound HTTP connections" \
      org.opencontainers.image.url="https://github.com/carpoolproxy/carpool" \
      org.opencontainers.image.source="https://github.com/carpoolproxy/carpool" \
      org.opencontainers.image.documentation="https://github.com/carpoolproxy/carpool#readme" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
# Not /carpool: a pod may mount a volume there (NODE_OPTIONS preload).
COPY --from=build /out/carpool /usr/local/bin/
# By number, so that the kubelet can tell that it is not root.
USER 65532:65532
EXPOSE 9128
ENTRYPOINT ["/usr/local/bin/carpool"]
