# syntax=docker/dockerfile:1
# The server and its command-line client, in an image that holds nothing else.
#   docker build --build-arg VERSION=1.2.3 -t coderclaw .

FROM --platform=$BUILDPLATFORM golang:1.26-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=dev
ARG TARGETOS
ARG TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X github.com/coderclaw/runtime/internal/app.version=$VERSION" \
    -o /out/ ./cmd/coderclawd ./cmd/clawctl
# What a process expects to find and a read-only root could not be given later.
RUN mkdir -p /skeleton/etc/coderclaw /skeleton/workspace /skeleton/var/lib/coderclaw \
    && mkdir -m 1777 /skeleton/tmp \
    && echo 'coderclaw:x:65532:65532::/workspace:' > /skeleton/etc/passwd \
    && echo 'coderclaw:x:65532:' > /skeleton/etc/group \
    && chown 65532:65532 /skeleton/workspace /skeleton/var/lib/coderclaw

FROM scratch
COPY --from=build /skeleton/ /
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/ /usr/local/bin/
ENV PATH=/usr/local/bin \
    CODERCLAW_LISTEN=0.0.0.0:7433 \
    CODERCLAW_REQUIRE_AUTH=true \
    CODERCLAW_CONFIG_DIR=/etc/coderclaw \
    CODERCLAW_DATA_DIR=/var/lib/coderclaw \
    CODERCLAW_WORKSPACE_ROOT=/workspace
# By number, so that an orchestrator can see that it is not root.
USER 65532:65532
WORKDIR /workspace
EXPOSE 7433
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --start-interval=1s \
    CMD ["coderclawd", "healthcheck"]
ENTRYPOINT ["coderclawd"]
CMD ["serve"]
