# The image of a Myelin homeserver.
#
#   docker build -t myelin .
#   docker run -v myelin:/data -p 8008:8008 -e MYELIN_SERVER__NAME=example.org myelin
#   docker exec -it <container> myelin user create alice
#
# Settings come from the environment (MYELIN_<SECTION>__<SETTING>) or from /data/myelin.toml. The environment goes
# first, also for the two settings below: ports are published and directories mounted where the container is started.

FROM rust:1.95-bookworm AS builder
RUN apt-get update \
    && apt-get install --yes --no-install-recommends clang libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --locked --profile dist --package myelin-homeserver

FROM debian:bookworm-slim
RUN useradd --system --uid 8008 --home-dir /data --no-create-home myelin \
    && install --directory --owner=myelin --mode=0700 /data
COPY --from=builder /build/target/dist/myelin /usr/local/bin/myelin

ENV MYELIN_CONFIG=/data/myelin.toml \
    MYELIN_SERVER__DATA_DIR=/data \
    MYELIN_LISTEN__ADDRESSES='["0.0.0.0:8008"]'
USER myelin
WORKDIR /data
VOLUME /data
EXPOSE 8008 8448
HEALTHCHECK --interval=10s --timeout=10s --start-period=5s \
    CMD ["myelin", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["myelin"]
CMD ["serve"]
