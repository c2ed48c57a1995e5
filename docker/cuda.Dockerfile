# docker build -f docker/cuda.Dockerfile -t lightning-mem1-cuda .
# docker run --rm --gpus all -v "$PWD/out:/out" -v "$HOME/.cache/huggingface:/root/.cache/huggingface" \
#     lightning-mem1-cuda fit paper/qa_qwen2.5-7b_24gb
# torch's wheels for Linux bring CUDA's libraries; the host needs NVIDIA's driver and container toolkit.
# With vLLM: --build-arg EXTRAS=vllm --build-arg CONSTRAINTS=constraints-vllm.txt
FROM python:3.11-slim
ARG EXTRAS=gpu
ARG CONSTRAINTS=constraints.txt
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip install --no-cache-dir -c /src/$CONSTRAINTS "/src[$EXTRAS]"
WORKDIR /out
ENTRYPOINT ["mem1"]
CMD ["--help"]
