"""TABLE of the named data sets, which are read from a folder, drawn, or bundled with scikit-learn."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from m3col.data.dataset import Dataset
from m3col.data.formats import (
    converted,
    digit_sums,
    digits,
    food101,
    hateful_memes,
    image_text_csv,
    mmimdb,
    mmimdb_packed,
    n24news,
    numbered_csv,
    pairs,
    sequence_folder,
    trifeatures,
)
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry


def _read_digits(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout,
    images: bool,
) -> Dataset:
    dataset = digits.read(test="test" in splits)
    dataset = replace(dataset, known_issues=entry.known_issues)
    return dataset if select is None else dataset.select(select)


def _read_digit_sums(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout,
    images: bool,
) -> Dataset:
    dataset = digit_sums.read(test="test" in splits)
    return dataset if select is None else dataset.select(select)


_UPSTREAM = "features were selected and scaled upstream; with the test samples or not cannot be told"


TABLE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "digits",
            "1,797 handwritten digits of scikit-learn as pixels, Fourier magnitudes and gradient histograms",
            _read_digits,
            modalities=digits.MODALITIES,
            classes=digits.CLASSES,
            embedded=True,
            known_issues="the training split is small (200 of 1,797 samples) by choice: settings then differ",
        ),
        Entry(
            "digit_sums",
            "pairs of scikit-learn's handwritten digits, the label is the last digit of their sum",
            _read_digit_sums,
            modalities=digit_sums.MODALITIES,
            classes=digit_sums.CLASSES,
            embedded=True,
        ),
        Entry(
            "rosmap",
            "Alzheimer's disease against normal controls, three omics (MOGONET)",
            numbered_csv.read,
            looks_like=numbered_csv.looks_like,
            modalities=("mRNA", "methylation", "miRNA"),
            classes=("control", "AD"),
            known_issues=(
                "the published split is atypical: logistic regression on mRNA reaches 83.0 % on it and 75.2 "
                "+- 3.8 % over 60 random resplits, on methylation 66.0 against 73.7, and 5-fold CV inside "
                f"train gives 72.1 on mRNA, so a validation figure far from test is this split; {_UPSTREAM}"
            ),
        ),
        Entry(
            "brca",
            "breast cancer PAM50 subtypes, three omics (MOGONET)",
            numbered_csv.read,
            looks_like=numbered_csv.looks_like,
            modalities=("mRNA", "methylation", "miRNA"),
            classes=("Normal-like", "Basal-like", "HER2-enriched", "Luminal A", "Luminal B"),
            known_issues=_UPSTREAM,
        ),
        Entry(
            "tcga_breast",
            "breast cancer subtypes of mixOmics' breast.TCGA; protein is missing from its test split",
            numbered_csv.read,
            looks_like=numbered_csv.looks_like,
            modalities=("mRNA", "miRNA", "protein"),
            default=("mRNA", "miRNA"),
            known_issues=(
                "the test split is not random: samples were put there because they have no protein data, and "
                "it holds none; features were filtered and normalised upstream"
            ),
        ),
        Entry(
            "handwritten",
            "2,000 handwritten digits as six feature sets (UCI Multiple Features)",
            numbered_csv.read,
            looks_like=numbered_csv.looks_like,
            modalities=("pixels", "fourier", "profiles", "zernike", "karhunen_loeve", "morphology"),
            classes=digits.CLASSES,
            known_issues="six pairs of samples are identical in every value, all inside the training split",
        ),
        Entry(
            "omics",
            "any folder in the MOGONET layout, given with --data-dir",
            numbered_csv.read,
            generic=True,
            looks_like=numbered_csv.looks_like,
        ),
        Entry(
            "n24news",
            "New York Times articles of 24 sections: a photo and its caption, headline, abstract or body",
            n24news.read_n24news,
            modalities=pairs.MODALITIES,
            kinds=pairs.KINDS,
            text=("caption",),
            looks_like=n24news.looks_like_n24news,
            known_issues="captions, headlines and abstracts of one article may name its section",
        ),
        Entry(
            "food101",
            "UPMC Food-101: photos of 101 dishes, each with the text of the web page where it was found",
            food101.read_food101,
            modalities=pairs.MODALITIES,
            kinds=pairs.KINDS,
            looks_like=food101.looks_like_food101,
            known_issues=(
                "pages were found by searching for the dish, so that most texts name it; labels are those searches, "
                "and some images show something else"
            ),
        ),
        Entry(
            "emoji",
            "1,840 emoji with their name and keywords, to be sorted into nine Unicode groups",
            image_text_csv.read,
            modalities=pairs.MODALITIES,
            kinds=pairs.KINDS,
            text=("abstract",),
            looks_like=image_text_csv.looks_like,
            known_issues=(
                "variants of one emoji, with nearly the same image and text, lie in different splits; headlines and "
                "captions give some labels away (the caption of 253 flags is 'flag'), abstracts leave those words out"
            ),
        ),
        Entry(
            "mmimdb",
            "MM-IMDb: 25,959 films with poster and plot, each with any of 23 genres (task: multi_label)",
            mmimdb.read,
            modalities=pairs.MODALITIES,
            kinds=pairs.KINDS,
            classes=mmimdb.GENRES,
            looks_like=mmimdb.looks_like,
            known_issues=(
                "published code keeps the epoch that is best on the test split, and reads another plot of a film at "
                "every access, in the test too; films without any of the 23 genres count as having none"
            ),
        ),
        Entry(
            "mmimdb_packed",
            "MM-IMDb's packed file: 25,959 films as VGG features of the poster and mean word vectors of the plot",
            mmimdb_packed.read,
            modalities=tuple(mmimdb_packed.MODALITIES),
            classes=mmimdb.GENRES,
            looks_like=mmimdb_packed.looks_like,
            known_issues=(
                "features were computed by its authors, of the longest plot; figures for posters and plots themselves "
                "do not compare with these"
            ),
        ),
        Entry(
            "hateful_memes",
            "Hateful Memes: images with the text on them, hateful or not",
            hateful_memes.read,
            modalities=pairs.MODALITIES,
            kinds=pairs.KINDS,
            classes=hateful_memes.CLASSES,
            looks_like=hateful_memes.looks_like,
            known_issues=(
                "test labels were never published: the test split is dev.jsonl, on which published code also chooses "
                "its epoch"
            ),
        ),
        Entry(
            "trifeatures",
            "pairs of drawn images: shape in common, textures of their own, a rule across both (data.trifeatures)",
            trifeatures.read_pairs,
            modalities=trifeatures.PAIR_MODALITIES,
            kinds=dict.fromkeys(trifeatures.PAIR_MODALITIES, "image"),
            embedded=True,
            known_issues=trifeatures.KNOWN_ISSUES,
        ),
        Entry(
            "trifeatures_captions",
            "2,600 drawn images of a shape with a texture and a colour, each with a caption that names all three",
            trifeatures.read_captions,
            modalities=trifeatures.CAPTION_MODALITIES,
            kinds={"image": "image", "text": "text"},
            embedded=True,
            known_issues="the caption names every label",
        ),
        *converted.ENTRIES,
        Entry(
            "image_text",
            "any folder with train.csv, val.csv and test.csv: paths of images, texts, labels; given with --data-dir",
            image_text_csv.read,
            modalities=pairs.MODALITIES,
            kinds=pairs.KINDS,
            generic=True,
            looks_like=image_text_csv.looks_like,
        ),
        Entry(
            "sequences",
            "any folder with train.csv (id, label) and a file per modality: sequences or tables; given with --data-dir",
            sequence_folder.read,
            generic=True,
            looks_like=sequence_folder.looks_like,
        ),
    )
}


def names() -> tuple[str, ...]:
    return tuple(TABLE)
