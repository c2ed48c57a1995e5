# docker build -f docker/cpu.Dockerfile -t lightning-mem1 .
# docker run --rm -v "$PWD/out:/out" lightning-mem1 fit webshop
# For a smaller image name the index of torch's CPU builds: --build-arg PIP_EXTRA_INDEX_URL=...
FROM python:3.11-slim
ARG PIP_EXTRA_INDEX_URL
COPY . /src
RUN pip install --no-cache-dir -c /src/constraints.txt torch==2.13.0 \
 && pip install --no-cache-dir -c /src/constraints.txt /src
ENV OMP_NUM_THREADS=1
WORKDIR /out
ENTRYPOINT ["mem1"]
CMD ["--help"]
