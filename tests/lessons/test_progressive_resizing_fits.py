"""Progressive resizing: loaders as they were after any exit, the schedule once, batch norm, stages; each
known fault by name."""


import pytest
import torch
from fastai.callback.core import Callback, CancelEpochException, CancelFitException, CancelTrainException
from fastai.callback.schedule import lr_find  # noqa: F401  gives Learner its lr_find, fine_tune and fit_one_cycle
from fastai.callback.tracker import SaveModelCallback
from fastai.data.load import DataLoader as FastaiDataLoader
from fastai.optimizer import Adam
from torch.utils.data import DataLoader
from resizing_helpers import Stop, any_loader, learner, sized, tensors

from lessonkit.normalization import Normalize, channel_stats
from lessonkit.progressive_resizing import (ProgressiveResize, fit_stages, size_schedule)

pytestmark = pytest.mark.usefixtures("own_cache")


# --- evaluated at another size than stated; loaders as they were, after any exit

EXITS = [RuntimeError("boom"), KeyboardInterrupt(), CancelFitException(), CancelEpochException(),
         CancelTrainException()]


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("event", ["before_batch", "after_pred", "after_batch", "before_train"])
def test_loaders_have_their_own_size_after_any_exit(random_photos, error, event):
    loaders = sized(random_photos, 32)
    learn = learner(loaders)
    cancel = isinstance(error, CancelFitException | CancelEpochException | CancelTrainException)
    if cancel:
        learn.fit(1, cbs=[ProgressiveResize(8), Stop(error, event, 0 if event == "before_train" else 2)])
    else:
        with pytest.raises(type(error)):
            learn.fit(1, cbs=[ProgressiveResize(8),
                              Stop(error, event, 0 if event == "before_train" else 2)])
    assert [loader.size for loader in loaders] == [32, 32]
    learn.model.fed.clear()
    learn.validate()
    learn.get_preds(dl=loaders.train.new(shuffle=False))
    assert {shape for _, shape in learn.model.fed} == {(32, 32)}
    learn.model.fed.clear()
    learn.fit(1)
    assert {shape for _, shape in learn.model.fed} == {(32, 32)}


def test_an_error_in_the_loader_leaves_its_size(random_photos, monkeypatch):
    loaders = sized(random_photos, 32)

    def fail(*args):
        raise KeyboardInterrupt

    loaders.train.make_batch = fail
    with pytest.raises(KeyboardInterrupt):
        learner(loaders).fit(1, cbs=ProgressiveResize(8))
    assert loaders.train.size == 32


def test_the_loader_has_its_own_size_whenever_somebody_looks(random_photos):
    loaders, looked = sized(random_photos, 32), []
    events = ("before_fit before_train before_batch after_pred after_step after_batch before_validate "
              "after_fit".split())
    see = lambda self: looked.append((loaders.train.size, loaders.valid.size))  # noqa: E731
    learner(loaders).fit(2, cbs=[ProgressiveResize(8),
                                 type("Look", (Callback,), dict.fromkeys(events, see))()])
    assert set(looked) == {(32, 32)} and len(looked) > 30


def test_validation_keeps_its_size_whatever_end_says(random_photos):
    learn = learner(sized(random_photos, 24))
    learn.fit(1, cbs=ProgressiveResize(8, 16))
    assert learn.model.seen()[-1] == 16 and set(learn.model.seen(training=False)) == {24}
    learn = learner(tensors(24, 24, 24))
    learn.fit(1, cbs=ProgressiveResize(8, 16))
    assert learn.model.seen()[-1] == 16 and set(learn.model.seen(training=False)) == {24}


# --- the schedule runs once

def test_lr_find_is_at_full_size_and_leaves_the_schedule_to_the_fit(random_photos, tmp_path):
    for loaders in (sized(random_photos, 16), tensors(24)):
        learn = learner(loaders, ProgressiveResize(8), path=tmp_path)
        learn.lr_find(num_it=10, show_plot=False)
        assert set(learn.model.seen()) == {16}
        learn.model.fed.clear()
        learn.fit(2)
        assert learn.model.seen() == size_schedule(12, 8, 16)


def test_fine_tune_grows_in_the_unfrozen_fit_alone(random_photos):
    for loaders in (sized(random_photos, 16), tensors(24)):
        learn = learner(loaders, groups=True)
        learn.fine_tune(2, freeze_epochs=1, cbs=ProgressiveResize(8))
        assert learn.model.seen() == [16] * 6 + size_schedule(12, 8, 16)


def test_fine_tune_of_a_network_in_one_piece_runs_the_schedule_once(random_photos):
    """fastxtend 11: nothing can be frozen, so the first fit gets it, and the second is at full size."""
    learn = learner(sized(random_photos, 16))
    learn.fine_tune(2, freeze_epochs=1, cbs=ProgressiveResize(8))
    assert learn.model.seen() == size_schedule(6, 8, 16) + [16] * 12


def test_a_second_fit_does_not_shrink_again_and_another_object_does(random_photos):
    learn = learner(sized(random_photos, 16), ProgressiveResize(8))
    learn.fit(1)
    learn.fit(1)
    assert learn.model.seen() == size_schedule(6, 8, 16) + [16] * 6
    learn.remove_cb(ProgressiveResize)
    learn.fit(1, cbs=ProgressiveResize(8))
    assert learn.model.seen()[-6:] == size_schedule(6, 8, 16)


def test_a_cancelled_fit_does_not_count_and_another_learner_starts_anew(random_photos):
    resize = ProgressiveResize(8)
    learn = learner(sized(random_photos, 16), resize)
    learn.fit(2, cbs=Stop(CancelFitException(), "after_batch", 3))
    learn.model.fed.clear()
    learn.fit(2)
    assert learn.model.seen() == size_schedule(12, 8, 16)
    other = learner(sized(random_photos, 16), resize)
    other.fit(1)
    assert other.model.seen() == size_schedule(6, 8, 16)


def test_a_cancelled_epoch_keeps_the_later_ones_in_place(random_photos):
    for loaders in (sized(random_photos, 16), tensors(24)):
        learn = learner(loaders)
        stop = (
            type("Stop", (Callback,), {"run_valid": False, "after_batch": lambda self: self.cancel()})()
        )
        stop.cancel = (lambda: (_ for _ in ()).throw(CancelTrainException()) if learn.epoch == 0
                       and learn.iter == 1 else None)
        learn.fit(2, cbs=[ProgressiveResize(8, multiple_of=1), stop])
        plan = size_schedule(12, 8, 16, multiple_of=1)
        assert learn.model.seen() == plan[:2] + plan[6:]


def test_start_epoch_takes_the_sizes_of_the_epochs_that_are_left(random_photos):
    learn = learner(sized(random_photos, 16))
    learn.fit(3, cbs=ProgressiveResize(8), start_epoch=2)
    assert learn.model.seen() == size_schedule(18, 8, 16)[12:]


def test_get_preds_on_training_data_and_validate_do_not_resize(random_photos):
    learn = learner(sized(random_photos, 16), ProgressiveResize(8))
    learn.get_preds(ds_idx=0)
    learn.validate(ds_idx=0)
    assert {shape for _, shape in learn.model.fed} == {(16, 16)}


def test_a_fit_of_no_epochs_does_nothing(random_photos):
    learn = learner(sized(random_photos, 16), ProgressiveResize(8))
    learn.fit(0)
    learn.fit(1)
    assert learn.model.seen() == size_schedule(6, 8, 16)


# --- batch norm's statistics

@any_loader
def test_batch_norm_belongs_to_the_final_size_before_the_last_validation(random_photos, make):
    """Weights as without it; statistics of that many batches at the final size; the schedule's steps as
    they were."""
    learns = []
    for refresh in (False, 3):
        learn = learner(make(random_photos), lr=0.0)
        if not hasattr(learn.dls.train, "epoch"):
            torch.manual_seed(1)
        learn.fit(2, cbs=ProgressiveResize(8, 12, refresh_bn=refresh))
        learns.append(learn)
    plain, fresh = (learn.model for learn in learns)
    for one, other in zip(plain.parameters(), fresh.parameters()):
        assert torch.equal(one, other)
    assert fresh.features[1].num_batches_tracked == 3 and plain.features[1].num_batches_tracked == 12
    assert not torch.equal(plain.features[1].running_mean, fresh.features[1].running_mean)
    assert not fresh.training
    kinds = [(training, size) for training, (size, _) in fresh.fed]
    valid = len(learns[1].dls.valid)
    assert kinds[-valid - 3 :] == [(False, 12)] * 3 + [(False, 16)] * valid
    assert fresh.seen() == plain.seen()


def test_refreshing_does_not_use_up_an_epoch(random_photos):
    rows = []
    for refresh in (False, True):
        loaders = sized(random_photos, 16)
        learner(loaders).fit(1, cbs=ProgressiveResize(8, refresh_bn=refresh))
        rows.append([loaders.train.last_indices.tolist() for _ in loaders.train])
        assert loaders.train.size == 16
    assert rows[0] == rows[1]


def test_the_best_model_that_is_saved_has_the_refreshed_statistics(random_photos, tmp_path):
    learn = learner(sized(random_photos, 16), path=tmp_path)
    learn.fit(1, cbs=[ProgressiveResize(8, refresh_bn=2), SaveModelCallback(monitor="valid_loss")])
    assert learn.model.features[1].num_batches_tracked == 2


# --- stages

@any_loader
def test_stages_have_their_size_in_training_and_validation(random_photos, make):
    loaders = make(random_photos)
    rows = [getattr(loader, "dataset", None) for loader in loaders]
    learn = learner(loaders)
    fit_stages(learn, [(8, 1), (12, 2), (16, 1)], lr=0.01)
    assert learn.model.seen() == [8] * 6 + [12] * 12 + [16] * 6
    valid = len(loaders.valid)
    assert (learn.model.seen(training=False)[-valid * 4 :] == [8] * valid + [12] * 2 * valid
            + [16] * valid)
    # the same split
    assert learn.dls is loaders and rows == [getattr(loader, "dataset", None) for loader in loaders]
    learn.model.fed.clear()
    learn.validate()
    assert set(learn.model.fed) == {(False, (16, 16))}
    assert not [cb for cb in learn.cbs if type(cb).__name__ == "ResizeTo"]


def test_no_validation_photo_is_trained_on_in_any_stage(random_photos):
    """Each new set of loaders draws a new split: here there is no new set of loaders."""
    seen = {"train": set(), "valid": set()}

    class Rows(Callback):
        def after_batch(self):
            seen["train" if self.training else "valid"].update(self.dl.last_indices.tolist())

    fit_stages(learner(sized(random_photos, 16), Rows()), [(8, 1), (16, 1)])
    assert not seen["train"] & seen["valid"]
    assert (seen["valid"] == set(random_photos.indices("valid").tolist())
            and seen["train"] == set(random_photos.indices("train").tolist()))


def test_normalization_and_transforms_are_carried_over(random_photos):
    stats = channel_stats(random_photos, 32)
    loaders = sized(random_photos, 32, normalize=Normalize(stats))
    transforms = [loader.after_batch for loader in loaders]
    learn = learner(loaders)
    fit_stages(learn, [(16, 1), (32, 1)])
    assert [loader.after_batch for loader in loaders] == transforms
    assert max(abs(float(x.mean())) for x in learn.model.pixels) < 0.25
    assert loaders.train.augment is not None and loaders.valid.augment is None


def test_each_stage_has_a_fresh_optimizer_and_its_own_cycle():
    kept, rates = [], []

    class Look(Callback):
        def before_fit(self):
            kept.append(self.opt)

        def after_fit(self):
            rates.append(list(self.learn.recorder.lrs))

    learn = learner(tensors(24), Look(), opt=Adam)
    fit_stages(learn, [(8, 2), (16, 2)], lr=[0.02, 0.005])
    assert kept[0] is not kept[1]
    first, second = rates
    assert max(first) == pytest.approx(0.02, rel=0.05) and max(second) == pytest.approx(0.005, rel=0.05)
    assert first[0] < 0.002 and first[-1] < 0.002 and second[0] < 0.0005


def test_a_stage_starts_without_momentum_from_another_size():
    steps = []

    class Look(Callback):
        run_valid = False

        def after_step(self):
            steps.append(max(int(s["step"]) for s in self.opt.state.values() if "step" in s))

    fit_stages(learner(tensors(24), Look(), opt=Adam), [(8, 1), (16, 1)])
    assert steps == [1, 2, 3, 4, 5, 6] * 2


def test_frozen_layers_stay_frozen():
    learn = learner(tensors(24), groups=True, opt=Adam, train_bn=False)
    learn.freeze()
    before = learn.model.features[0].weight.clone()
    head = learn.model.head.weight.clone()
    fit_stages(learn, [(8, 1), (16, 1)], lr=0.1)
    assert torch.equal(before, learn.model.features[0].weight) and learn.opt.frozen_idx == 1
    assert not torch.equal(head, learn.model.head.weight)


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()],
                         ids=["error", "interrupt"])
def test_a_stage_that_fails_gives_the_sizes_back(random_photos, error):
    loaders = sized(random_photos, 32)
    loaders.valid.size = 24  # whatever they were
    with pytest.raises(type(error)):
        fit_stages(learner(loaders), [(8, 1), (16, 1)], cbs=Stop(error, "after_pred", 1))
    assert [loader.size for loader in loaders] == [32, 24]


def test_stages_at_the_last_size_stay_there(random_photos):
    loaders = sized(random_photos, 16)
    fit_stages(learner(loaders), [(8, 1), (24, 1)])
    assert [loader.size for loader in loaders] == [24, 24]


@pytest.mark.parametrize("stages, error",
                         [([], ValueError), ([(8,)], ValueError), ((8, 1), ValueError),
                          ([(0, 1)], ValueError), ([(8, 0)], ValueError), ([(8.5, 1)], TypeError),
                          ([("8", 1)], TypeError), (None, ValueError)])
def test_stages_that_make_no_sense_are_refused_before_training(random_photos, stages, error):
    learn = learner(sized(random_photos, 16))
    with pytest.raises(error):
        fit_stages(learn, stages)
    assert not learn.model.fed and learn.dls.train.size == 16


def test_learning_rates_stages_and_callbacks_that_do_not_fit(random_photos):
    learn = learner(sized(random_photos, 16))
    with pytest.raises(ValueError, match="3 learning rates for 2 stages"):
        fit_stages(learn, [(8, 1), (16, 1)], lr=[1, 2, 3])
    with pytest.raises(ValueError, match="use one of the two"):
        fit_stages(learn, [(8, 1), (16, 1)], cbs=ProgressiveResize())
    with pytest.raises(ValueError, match="use one of the two"):
        fit_stages(learner(sized(random_photos, 16), ProgressiveResize()), [(8, 1), (16, 1)])
    assert not learn.model.fed


@pytest.mark.parametrize("kind", [FastaiDataLoader, DataLoader])
def test_loaders_that_cannot_change_must_end_at_their_own_size(kind):
    learn = learner(tensors(24, kind=kind))
    for last in (8, 32):
        with pytest.raises(ValueError, match=f"last stage has {last} pixels, but the loaders give 16"):
            fit_stages(learn, [(8, 1), (last, 1)])
    with pytest.raises(ValueError, match="needs loaders that give as many"):
        fit_stages(learn, [(20, 1), (16, 1)])
    assert not learn.model.fed
