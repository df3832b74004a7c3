"""The contract of generators, for every one of the table; and what is special to each that learns."""

from math import log, pi

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

from corpora.errors import UserError
from corpora.tables import Tables
from generators import GENERATORS, GeneratorSetting
from generators.base import draw_tokens
from generators.cluster import ClusterProposer
from generators.mixture import noise_behind, spread
from objectives import build_objectives
from objectives.batch import DeviceProposal, DeviceTarget, Filling
from objectives.spec import build_plugin
from tests.small_runs import make_config
from tests.test_loop import interrupt_at
from tests.test_objectives import make_model, open_stream
from training.encoders import EncoderSpec, build_encoder
from training.loop import pretrain
from training.model import PretrainingModel
from training.stream import to_batch

VARIANTS = [
    *[(name, {}) for name in GENERATORS],
    ("masked_lm", {"towers": "two", "sharing": "none"}),
    ("masked_lm", {"temperature": 0.5, "width_rate": 1.0}),
    ("cluster", {"num_clusters": 7, "sharpness": 5.0}),
    ("mixture", {"num_taps": 2, "sharing": "none"}),
    ("curriculum", {"easier_rate": 0.5, "easier": "uniform"}),
]
NAMES = [name + "".join(f",{key}={value}" for key, value in options.items()) for name, options in VARIANTS]


@pytest.fixture(scope="module")
def frozen_folder(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked_lm")
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=200, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertForMaskedLM(config).save_pretrained(folder)
    corpus.load_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def build(corpus, frozen_folder):
    """Return a function from a name and options to a generator at work, beside an encoder of four layers."""
    network = build_encoder(
        EncoderSpec(name="tiny", vocabulary=corpus.vocabulary, max_length=64, dropout=0.0, attention="eager")
    )
    setting = GeneratorSetting(
        config=network.config,
        word_embeddings=network.get_input_embeddings(),
        vocabulary=corpus.vocabulary,
        tables=Tables(corpus),
        attention="eager",
    )

    def make(name, options):
        torch.manual_seed(0)
        given = {"path": str(frozen_folder)} if name == "frozen" else {}
        return build_plugin("generator", name, given | options, GENERATORS).build(setting)

    return make


@pytest.fixture(scope="module")
def batch(corpus):
    return to_batch(open_stream(corpus, "rtd").build(np.arange(6)), corpus.vocabulary)


def ask(batch, uniforms, rows=4, excludes_original=False):
    """Return a proposal for the first `rows` hidden tokens of a batch."""
    asked = batch.proposals["rtd"]
    fills = torch.ones(rows, dtype=torch.bool)
    return DeviceProposal(asked.positions[:rows], asked.original_ids[:rows], uniforms, fills, excludes_original)


def grid(draws, rows=4):
    """Return evenly spaced uniform numbers (rows, draws), as fine as those of a run."""
    return ((torch.arange(draws).double() + 0.5) / draws).float().expand(rows, -1).contiguous()


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=NAMES)
def test_tokens_are_drawn_from_the_stated_distribution(corpus, build, batch, name, options):
    """Invariants 16 and 22: never a special id; total variation below .005 over 4 x 40,000 draws."""
    proposed = build(name, options)(batch, ask(batch, grid(40_000)))
    stated = proposed.log_probabilities.exp().double()
    assert torch.allclose(stated.sum(1), torch.ones(4, dtype=torch.float64), atol=1e-5)
    assert (stated[:, list(corpus.vocabulary.special_ids)] == 0).all()
    drawn = torch.stack([torch.bincount(row, minlength=200) for row in proposed.token_ids]) / 40_000
    assert (drawn[:, list(corpus.vocabulary.special_ids)] == 0).all()
    assert float((drawn - stated).abs().sum(1).max()) / 2 < 0.005


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=NAMES)
def test_the_original_is_never_drawn_where_it_is_excluded(build, batch, name, options):
    """Invariant 21; the others keep their proportions."""
    proposed = build(name, options)(batch, ask(batch, grid(20_000), excludes_original=True))
    original = batch.proposals["rtd"].original_ids[:4, None]
    assert not (proposed.token_ids == original).any()
    expected = proposed.log_probabilities.exp().double().scatter(1, original, 0.0)
    expected /= expected.sum(1, keepdim=True)
    drawn = torch.stack([torch.bincount(row, minlength=200) for row in proposed.token_ids]) / 20_000
    assert float((drawn - expected).abs().sum(1).max()) / 2 < 0.006


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=NAMES)
def test_a_proposal_depends_on_its_own_example_and_uniform_numbers_alone(corpus, build, name, options):
    generator, stream = build(name, options).eval(), open_stream(corpus, "rtd")
    together = to_batch(stream.build(np.arange(6)), corpus.vocabulary)
    tokens = generator(together, together.proposals["rtd"]).token_ids
    alone = [to_batch(stream.build(np.array([n])), corpus.vocabulary) for n in range(6)]
    singly = torch.cat([generator(each, each.proposals["rtd"]).token_ids for each in alone])
    assert torch.equal(tokens, singly)
    assert torch.equal(tokens, generator(together, together.proposals["rtd"]).token_ids)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=NAMES)
def test_what_is_proposed_has_no_gradient_and_what_learns_has_a_loss(build, batch, name, options):
    generator = build(name, options)
    proposed = generator(batch, batch.proposals["rtd"])
    learned = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    assert not proposed.token_ids.requires_grad and not proposed.log_probabilities.requires_grad
    assert (proposed.loss is not None) == bool(learned)
    if proposed.loss is not None:  # invariant 40: of an untrained generator
        assert proposed.loss.count == len(proposed.token_ids)
        assert float(proposed.loss.total.detach()) / proposed.loss.count == pytest.approx(log(195), rel=0.15)
        generator.eval()
        held_out = generator(batch, batch.proposals["rtd"]).loss
        statistics = {key: value.numpy() for key, value in held_out.statistics.items()}
        assert generator.summarise(statistics, held_out.count)["hidden_loss"] == pytest.approx(
            float(held_out.total.detach()) / held_out.count, rel=1e-5
        )


@pytest.mark.parametrize("attention", ["unpadded", "eager", "sdpa"])
@pytest.mark.parametrize("encoder", ["tiny", "bert-tiny", "deberta-v2-tiny"])
def test_a_two_tower_network_does_not_see_the_token_that_it_names(corpus, batch, encoder, attention):
    """Invariant 48 (Clark et al., 2020b): changing token i changes the logits at its neighbours alone."""
    if (encoder, attention) == ("deberta-v2-tiny", "sdpa"):
        pytest.skip("it has eager attention alone")
    network = build_encoder(
        EncoderSpec(name=encoder, vocabulary=corpus.vocabulary, max_length=64, dropout=0.0, attention=attention)
    )
    setting = GeneratorSetting(
        config=network.config,
        word_embeddings=network.get_input_embeddings(),
        vocabulary=corpus.vocabulary,
        tables=Tables(corpus),
        attention=attention,
    )
    generator = GENERATORS["masked_lm"](towers="two").build(setting).eval()
    length = int(batch.attention_mask[0].sum())
    positions = torch.arange(1, length - 1)
    with torch.no_grad():
        before = generator.logits(batch, positions)
        for changed in (1, length // 2, length - 2):
            other = batch.with_ids(torch.tensor([changed]), torch.tensor([77]))
            difference = (generator.logits(other, positions) - before).abs().amax(1)
            assert float(difference[changed - 1]) == 0
            beside = difference[torch.arange(length - 2) != changed - 1]
            assert (beside > 1e-6).all()


def test_decoupled_training_needs_tables_of_their_own():
    with pytest.raises(UserError, match="sharing=gdes or sharing=none"):
        build_plugin("generator", "masked_lm", {"decoupled": "true"}, GENERATORS)
    made = build_plugin(
        "generator", "masked_lm", {"decoupled": "true", "sharing": "gdes", "learning_rate_factor": "3"}, GENERATORS
    )
    assert made.apart and made.rate_factor == 3.0


def small_clusters():
    """Six special or ordinary ids in three clusters: 2, 3 and 4 in the first, 5 in the second, 6 and 7 in the third."""
    return ClusterProposer(torch.tensor([-1, -1, 0, 0, 0, 1, 2, 2]), sharpness=2.0)


def shown_to(generator, originals, drawn, predictions):
    number = len(originals)
    positions = torch.arange(number) * 2
    proposal = DeviceProposal(
        positions, torch.tensor(originals), torch.zeros(number), torch.ones(number, dtype=torch.bool)
    )
    asked = DeviceTarget(torch.arange(2 * number), torch.zeros(2 * number, dtype=torch.long))
    every = torch.ones(2 * number, dtype=torch.long)
    every[positions] = torch.tensor(predictions)
    generator.observe(Filling(proposal, torch.tensor(drawn), None), asked, every)


def test_clusters_are_drawn_by_their_scaled_counts(batch):
    """Invariant 26 (Di Liello et al., 2022): softmax(beta x minmax(row)), then uniform in the cluster."""
    generator = small_clusters()
    generator.counts.copy_(torch.tensor([[1.0, 5.0, 3.0], [1.0, 1.0, 1.0], [0.0, 0.0, 8.0]]))
    weights = np.exp(2 * np.array([0, 1, 0.5]))
    expected = weights / weights.sum()
    proposal = DeviceProposal(torch.arange(3), torch.tensor([3, 5, 1]), torch.zeros(3), torch.ones(3, dtype=torch.bool))
    rates = generator(batch, proposal).log_probabilities.exp()
    wanted = [0, 0, *[expected[0] / 3] * 3, expected[1], *[expected[2] / 2] * 2]
    assert rates[0].tolist() == pytest.approx(wanted, abs=1e-6)
    assert rates[1].tolist() == pytest.approx([0, 0, 1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 6, 1 / 6], abs=1e-6)
    last = np.exp([0, 0, 2.0]) / np.exp([0, 0, 2.0]).sum()
    mean = (expected + 1 / 3 + last) / 3  # an original in no cluster
    assert rates[2, 5] == pytest.approx(mean[1], abs=1e-6)


def test_equal_pairs_of_clusters_in_a_batch_all_count():
    """Invariant 26: the reference's `counts[i, j] += 1` counts them once."""
    generator = small_clusters()
    generator.begin_step()
    shown_to(generator, originals=[2, 3, 4, 5, 6, 7], drawn=[5, 5, 5, 6, 7, 7], predictions=[0, 0, 0, 1, 1, 1])
    shown_to(generator, originals=[2, 1], drawn=[5, 5], predictions=[1, 0])  # [UNK] is in no cluster
    generator.finish_step(0.5, lambda tensor: tensor * 2)  # two processes that saw the same
    wanted = torch.ones(3, 3, dtype=torch.float64)
    wanted[0, 1] += 2 * (3 - 1)
    wanted[1, 2] -= 2
    wanted[2, 2] -= 2  # 6 -> 7 was told; 7 -> 7 is no substitute
    assert torch.equal(generator.counts, wanted)


def test_what_a_step_that_was_not_taken_saw_is_forgotten():
    generator = small_clusters()
    shown_to(generator, originals=[2], drawn=[5], predictions=[0])
    generator.begin_step()
    generator.finish_step(0.5, lambda tensor: tensor)
    assert torch.equal(generator.counts, torch.ones(3, 3, dtype=torch.float64))


def test_clusters_learn_from_the_detector_in_training_alone(corpus):
    model = make_model(corpus, "cluster_rts")
    batch = to_batch(open_stream(corpus, "cluster_rts").build(np.arange(16)), corpus.vocabulary)
    counts = model.generators["cluster_rts"].counts
    before = counts.clone()
    model.eval()
    model.begin_step()
    model(batch)
    model.finish_step(0.5, lambda tensor: tensor)
    assert torch.equal(counts, before)
    model.train()
    model.begin_step()
    model(batch)
    assert torch.equal(counts, before)
    model.finish_step(0.5, lambda tensor: tensor)
    asked = batch.proposals["cluster_rts"]
    changed = int((counts - before).abs().sum())
    assert 0.5 * len(asked.positions) < changed <= len(asked.positions)


def test_state_that_is_learned_comes_back_bit_for_bit(corpus, build, batch):
    cluster = build("cluster", {"num_clusters": 7})
    cluster.counts.add_(torch.arange(49).view(7, 7) ** 2)
    curriculum = build("curriculum", {"easier_rate": 0.5})
    curriculum.finish_step(0.2, lambda tensor: tensor)
    for name, made, options in (
        ("cluster", cluster, {"num_clusters": 7}),
        ("curriculum", curriculum, {"easier_rate": 0.5}),
    ):
        fresh = build(name, options)
        question = ask(batch, grid(500))
        wanted = made(batch, question).token_ids
        assert not torch.equal(fresh(batch, question).token_ids, wanted)
        fresh.load_state_dict(made.state_dict())
        assert torch.equal(fresh(batch, question).token_ids, wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "generator"),
    [
        ("cluster_rts", "cluster:num_clusters=20"),
        ("rtd", "curriculum:easier_rate=0.5,until_rate=1"),
        ("rtd", "mixture:num_taps=2"),
        ("electric", "masked_lm:towers=two,sharing=gdes,decoupled=true"),
    ],
)
def test_a_run_that_was_interrupted_ends_with_the_same_state_bit_for_bit(tmp_path, objective, generator):
    settings = {"objective": objective, "generator": generator, "save_every": 2, "max_steps": 6}
    pretrain(make_config(tmp_path, out=str(tmp_path / "straight"), **settings))
    broken = make_config(tmp_path, out=str(tmp_path / "broken"), **settings)
    interrupt_at(3, broken)
    pretrain(make_config(tmp_path, **{**broken.as_dict(), "trackers": (), "resume": broken.out}))
    ends = [tmp_path / name / "checkpoints" / "step-00000006" / "model.safetensors" for name in ("straight", "broken")]
    one, other = map(load_file, ends)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    if generator.startswith("cluster"):
        assert (one["generators.cluster_rts.counts"] != 1).sum() > 20
    if generator.startswith("curriculum"):
        assert float(one["generators.rtd.progress"]) == 1.0


def test_a_frozen_generator_learns_nothing_and_has_no_dropout(build, batch):
    generator = build("frozen", {})
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    generator.train()
    assert not any(module.training for module in generator.modules())
    first, second = (generator(batch, batch.proposals["rtd"]) for _ in range(2))
    assert torch.equal(first.log_probabilities, second.log_probabilities) and first.loss is None


def test_a_frozen_generator_says_what_transformers_does(build, batch, frozen_folder, corpus):
    logits = (
        BertForMaskedLM.from_pretrained(frozen_folder)
        .eval()(input_ids=batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=batch.token_type_ids)
        .logits
    )
    wanted = logits.detach().flatten(0, 1)[batch.proposals["rtd"].positions]
    wanted[:, list(corpus.vocabulary.special_ids)] = -torch.inf
    found = build("frozen", {"temperature": 2.0})(batch, batch.proposals["rtd"]).log_probabilities
    assert torch.allclose(found, (wanted / 2).log_softmax(-1), atol=1e-5)


def test_a_frozen_generator_with_other_tokens_is_refused(build, corpus, frozen_folder, tmp_path):
    with pytest.raises(UserError, match="can't be loaded as a masked LM"):
        build("frozen", {"path": str(tmp_path)})
    BertForMaskedLM.from_pretrained(frozen_folder).save_pretrained(tmp_path)
    tokenizer = corpus.load_tokenizer()
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="not those of this run"):
        build("frozen", {"path": str(tmp_path)})
    with pytest.raises(UserError, match="path is empty"):
        build_plugin("generator", "frozen", {}, GENERATORS)


def test_the_mixture_learns_against_the_encoder_and_nothing_else_does(build, batch):
    """Meng et al., 2022: the gradient of what is drawn is turned round, and reaches the mixture alone."""
    generator = build("mixture", {"num_taps": 2, "sharing": "none"})
    torch.nn.init.normal_(generator.gate.weight, std=1.0)
    question = ask(batch, grid(3)[:, 1], rows=4)
    proposed = generator(batch, question)
    assert torch.equal(proposed.carrier.detach(), torch.zeros(4, 200))
    downhill = torch.randn(200, generator=torch.Generator().manual_seed(0))  # the encoder's loss, were it linear
    (proposed.carrier @ downhill).sum().backward()
    reached = {name for name, p in generator.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == {"gate.weight"}

    def relaxed_loss():  # what the gradient belongs to, with the noise of the drawing held fixed
        heads = generator(batch, question).log_probabilities
        beliefs = heads.index_fill(1, generator.special_ids, -torch.inf)
        return (((beliefs + noise) / generator.relaxation).softmax(-1) @ downhill).sum()

    noise = noise_behind(proposed.log_probabilities, proposed.token_ids, question.uniforms)
    gradient, step = generator.gate.weight.grad.clone(), 1e-2
    with torch.no_grad():
        generator.gate.weight += step * gradient / gradient.norm()
        above = relaxed_loss()
        generator.gate.weight -= 2 * step * gradient / gradient.norm()
        below = relaxed_loss()
    assert float((above - below) / (2 * step)) == pytest.approx(-float(gradient.norm()), rel=0.02)


def test_the_encoders_gradient_reaches_the_mixture(corpus):
    model = make_mixed(corpus)
    losses = model(to_batch(open_stream(corpus, "rtd").build(np.arange(8)), corpus.vocabulary))
    losses["rtd"].total.backward()
    generator = model.generators["rtd"]
    assert generator.gate.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in [*generator.network.parameters(), *generator.head.parameters()])


def make_mixed(corpus):
    torch.manual_seed(0)
    network = build_encoder(
        EncoderSpec(name="tiny", vocabulary=corpus.vocabulary, max_length=64, dropout=0.0, attention="eager")
    )
    setting = GENERATORS["mixture"](num_taps=2, sharing="none")
    return PretrainingModel(network, build_objectives("rtd"), setting, Tables(corpus), "eager", rows=8)


def test_the_noise_behind_a_draw_is_gumbels(corpus):
    """Maddison et al., 2014: whatever was drawn, token and noise together are as if the noise had come first."""
    rates = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    uniforms = (torch.rand(40_000, generator=torch.Generator().manual_seed(0)) * 2**24).floor() / 2**24
    drawn = draw_tokens(rates.expand(40_000, -1), uniforms)
    log_rates = rates.log().expand(40_000, -1)
    noise = noise_behind(log_rates, drawn, uniforms)
    assert torch.equal((log_rates + noise).argmax(1), drawn)
    assert noise[:, :4].mean(0).tolist() == pytest.approx([0.5772] * 4, abs=0.03)
    assert noise[:, :4].var(0).tolist() == pytest.approx([pi**2 / 6] * 4, rel=0.05)


def test_numbers_are_spread_evenly_and_apart():
    numbers = spread(torch.arange(400) / 2**24, 500)
    assert 0 < float(numbers.min()) and float(numbers.max()) < 1
    shares = torch.histc(numbers, bins=20, min=0, max=1) / numbers.numel()
    assert shares.tolist() == pytest.approx([0.05] * 20, abs=0.003)
    centred = numbers - 0.5
    assert float((centred[:-1] * centred[1:]).mean()) == pytest.approx(0, abs=0.002)  # neighbouring numbers
    assert float((centred[:, :-1] * centred[:, 1:]).mean()) == pytest.approx(0, abs=0.002)  # neighbouring tokens


def test_a_curriculum_ends_as_the_masked_lm_that_it_holds(build, batch):
    generator = build("curriculum", {"start_temperature": 4.0, "easier_rate": 0.5, "until_rate": 0.5})
    question = ask(batch, grid(2))
    plain = build("masked_lm", {})(batch, question).log_probabilities
    unigram = build("unigram", {})(batch, question).log_probabilities
    for progress, ease in ((0.0, 1.0), (0.25, 0.5), (0.5, 0.0), (1.0, 0.0)):
        generator.finish_step(progress, lambda tensor: tensor)
        smooth = (plain / (1 + 3 * ease)).log_softmax(-1).exp()
        wanted = (1 - 0.5 * ease) * smooth + 0.5 * ease * unigram.exp()
        assert torch.allclose(generator(batch, question).log_probabilities.exp(), wanted, atol=1e-6)
