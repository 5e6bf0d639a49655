"""A user's script. What ends in `# E` is a mistake that type checkers are to find; all else is right."""

import numpy as np
from numpy.typing import NDArray

import gpunet as gn

x = np.zeros((100, 20), np.float32)
y = np.zeros(100, np.int64)

model = gn.Sequential([gn.Dense(16, "relu"), gn.Dropout(0.5), gn.Dense(10)], scale=None)
layer: gn.Layer = model.layers[0]
trainer = gn.Trainer(model, loss="softmax_cross_entropy", optimizer=gn.Adam(1e-2), device="cpu", seed=0)
history = trainer.fit(x, y, epochs=2, batch_size=32, validation_split=0.1, callbacks=[gn.EarlyStopping()])
losses: list[float] = history["train_loss"]
accuracy: float = trainer.evaluate(x, y)["accuracy"]
predicted: NDArray[np.int64] = model.predict(x)
u, s, vt = gn.svd(x, k=3)
svd = gn.svd(x, 3, method="gram", compute="right", device="cpu")
rank: int = svd.s.size
sums = gn.gram(x, center=True)
pca = sums.components(3)
by_class = gn.class_pca(x, y, components=2)
small = gn.compress(model, (x, y), budget=0.5)
net = gn.Classifier((64,), epochs=20, precision="mixed").fit(x, y)
in_bfloat16 = gn.Trainer(model, precision="mixed").trained_in == "mixed"
score: float = net.score(x, y)
scaled = gn.PCA(0.9).fit(x).transform(x)
data = gn.datasets.load("digits")
first: NDArray[np.generic] = data.x_train[0]
gn.save(model, "model.safetensors")
again: gn.Sequential = gn.load("model.safetensors")
error = gn.gradient_check(model, "softmax_cross_entropy", x, y)
rule: gn.linalg.RankRule = gn.Energy(0.9)
gn.Factorise(0.1, rank=gn.Energy(0.9))

trainer.fitt(x, y)  # E
model.layerz  # E
model.fit(x, y)  # E
gn.svdd(x)  # E
history.losses  # E
svd.singular  # E
net.fitt(x, y)  # E
net.predict_probability(x)  # E
gn.PCA(0.9).fitted  # E
data.train  # E
sums.componentz(3)  # E
small.saved  # E
trainer.fit(x, y, epoch=2)  # E
gn.Dense(16, activations="relu")  # E
gn.svd(x, rank=3)  # E
gn.Classifier(hidden=(64,))  # E
gn.compress(model, budgets=0.5)  # E
gn.datasets.load("digits", resized=True)  # E
number: str = trainer.evaluate(x, y)["accuracy"]  # E
labels: int = model.predict(x)  # E
triples: NDArray[np.float32] = gn.svd(x)  # E
singular: str = gn.svd(x).s  # E
nothing: None = history["train_loss"]  # E
kept: list[int] = net.predict(x)  # E
gn.Trainer(model, dtype="float23")  # E
gn.Trainer(model, dtype=np.int32)  # E
model.build((20,), gn.get_backend("cpu"), dtype="single")  # E
gn.Dense(16, "rellu")  # E
gn.Trainer(model, loss="softmax")  # E
gn.Trainer(model, optimizer="adamm")  # E
gn.svd(x, method="grams")  # E
gn.svd(x, compute="both sides")  # E
gn.svd(x, k="three")  # E
gn.Dense("sixteen")  # E
gn.Sequential(gn.Dense(16))  # E
gn.Sequential(gn.Dense(16), gn.Dense(10))  # E
gn.Sequential([gn.Dense(16)], gn.Dense(10))  # E
gn.Conv2D(8, padding="samee")  # E
gn.GELU("tan")  # E
gn.Trainer(model, graphs="of")  # E
gn.Trainer(model, precision="half")  # E
gn.Classifier((64,), precision=np.float32)  # E
