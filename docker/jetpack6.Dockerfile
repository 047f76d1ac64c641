# Takt for Jetson Orin with JetPack 6.2: Python 3.10, CUDA 12.6, TensorRT 10.3, all of NVIDIA's image.
#
#   docker build -f docker/jetpack6.Dockerfile -t takt:jetpack6 .        # on the board, in this repository
#
# Not tried: no board was at hand. What was checked without one is listed in docs/jetson.md.
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip python3-libnvinfer \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/takt
COPY . .
# TensorRT is the image's: the extra would ask the index for one that is not there. cuda-python 12.6 fits its
# CUDA; a newer one wants a newer driver.
RUN python3 -m pip install --no-cache-dir --upgrade pip \
    && python3 -m pip install --no-cache-dir --constraint constraints/py310.txt \
        '.[cpu]' onnx \
    && python3 -m pip install --no-cache-dir 'cuda-python==12.6.2.post1'

# Engines outlive the container, since they take minutes to build.
ENV TAKT_ENGINES=/var/lib/takt/engines
VOLUME /var/lib/takt
EXPOSE 5555
ENTRYPOINT ["takt"]
CMD ["doctor"]
