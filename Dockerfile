# One image for every service of ours: Airflow's components, MLflow, serving, follower and notary.
#
#   docker build -t llmops:0.1.0 .
#
# On Astro Runtime (take the tag of your Airflow version, Python 3.11, ending in -base: the plain images
# install requirements.txt by themselves, with CUDA):
#
#   docker build --build-arg BASE_IMAGE=<astro runtime>-python-3.11-base --build-arg BASE_USER=astro -t llmops:0.1.0 .
ARG BASE_IMAGE=apache/airflow:slim-3.3.2-python3.11
FROM ${BASE_IMAGE}

ARG BASE_USER=airflow
# A torch backend of uv. Only a name given here on purpose ever brings CUDA.
ARG TORCH_BACKEND=cpu
# For networks with a package mirror of their own.
ARG PIP_INDEX_URL=
ARG PIP_FIND_LINKS=

USER root
# Sources of kind `git` need git.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && for name in home home/data_docs lake mlflow logs notary notary-keys users; do install -d -m 0750 -o "${BASE_USER}" -g 0 "/var/lib/llmops/${name}"; done

WORKDIR ${AIRFLOW_HOME}
# The lock first: a change of our code does not install everything again.
COPY pyproject.toml README.md requirements.txt ./
COPY tools/bootstrap.py tools/
COPY include/llmops/__init__.py include/llmops/
RUN LLMOPS_TORCH="${TORCH_BACKEND}" UV_NO_CACHE=1 \
    python tools/bootstrap.py install --python "$(command -v python)" \
    && rm -rf .tools

COPY include include
COPY dags dags
COPY plugins plugins
COPY config config
COPY docker docker
COPY airflow_settings.yaml ./

# Who made this code, for the list of a release's authors: the last commit, and the addresses of all who committed
# since the release in production, separated by commas. Without them nobody is known.
ARG LLMOPS_COMMIT=
ARG LLMOPS_COMMITTERS=
ENV LLMOPS_COMMIT=${LLMOPS_COMMIT} \
    LLMOPS_COMMITTERS=${LLMOPS_COMMITTERS} \
    LLMOPS_HOME=/var/lib/llmops/home \
    LLMOPS_STORAGE_ROOT=/var/lib/llmops/lake \
    LLMOPS_INCLUDE=${AIRFLOW_HOME}/include \
    HF_HUB_OFFLINE=1 \
    PYTHONUNBUFFERED=1

USER ${BASE_USER}
# Commands are plain argument lists: `llmops serve ...`, `airflow scheduler ...`, `mlflow server ...`.
ENTRYPOINT []
CMD ["llmops", "--help"]
