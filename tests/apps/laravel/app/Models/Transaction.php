<?php

namespace App\Models;

class Transaction extends CompanyRecord
{
}
