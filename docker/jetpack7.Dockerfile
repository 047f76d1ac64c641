# Takt for Jetson Thor (and Orin from JetPack 7.2) with JetPack 7: Python 3.12, CUDA 13, TensorRT 10.13 or newer.
#
#   docker build -f docker/jetpack7.Dockerfile -t takt:jetpack7 .        # on the board, in this repository
#
# JetPack 7 runs the containers that NVIDIA makes for Arm servers; TensorRT's holds Python, CUDA and TensorRT.
# Take the tag whose TensorRT is not newer than the board's driver allows:
#
#   docker build --build-arg BASE=nvcr.io/nvidia/tensorrt:25.11-py3 ...
#
# Not tried: no board was at hand. What was checked without one is listed in docs/jetson.md.
ARG BASE=nvcr.io/nvidia/tensorrt:25.08-py3
FROM ${BASE}

WORKDIR /opt/takt
COPY . .
# TensorRT is the image's. cuda-bindings 13.0 is CUDA 13.0's, which the first JetPack 7 has.
RUN python3 -m pip install --no-cache-dir --constraint constraints/py311.txt '.[cpu]' onnx \
    && python3 -m pip install --no-cache-dir 'cuda-bindings==13.0.*'

# Engines outlive the container, since they take minutes to build.
ENV TAKT_ENGINES=/var/lib/takt/engines
VOLUME /var/lib/takt
EXPOSE 5555
ENTRYPOINT ["takt"]
CMD ["doctor"]
